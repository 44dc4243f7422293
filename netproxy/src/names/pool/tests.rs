use super::{Ipv4Addr, Pool, PoolError};

fn pool(first: [u8; 4], length: u8) -> Result<Pool, PoolError> {
    Pool::new(first.into(), length)
}

#[test]
fn a_pool_is_a_private_prefix() {
    for (first, length) in [
        ([10, 0, 0, 0], 8),
        ([10, 9, 8, 4], 30),
        ([100, 64, 0, 0], 10),
        ([172, 16, 0, 0], 12),
        ([192, 168, 0, 0], 16),
        ([198, 18, 0, 0], 15),
    ] {
        assert!(pool(first, length).is_ok(), "{first:?}/{length}");
    }
    assert_eq!(pool([198, 18, 0, 0], 15), Ok(Pool::default()));
    for (first, length, error) in [
        ([10, 0, 0, 0], 7, PoolError::Length),
        ([0, 0, 0, 0], 0, PoolError::Length),
        ([10, 0, 0, 0], 31, PoolError::Length),
        ([10, 0, 0, 0], 33, PoolError::Length),
        ([10, 0, 0, 1], 24, PoolError::Bits),
        ([198, 19, 0, 0], 15, PoolError::Bits),
        ([198, 18, 0, 0], 14, PoolError::Bits),
        ([198, 16, 0, 0], 14, PoolError::Unsuitable),
        ([100, 0, 0, 0], 9, PoolError::Unsuitable),
        ([172, 0, 0, 0], 11, PoolError::Unsuitable),
        ([192, 168, 0, 0], 15, PoolError::Unsuitable),
        ([8, 8, 8, 0], 24, PoolError::Unsuitable),
        ([127, 0, 0, 0], 8, PoolError::Unsuitable),
        ([169, 254, 0, 0], 16, PoolError::Unsuitable),
        ([224, 0, 0, 0], 8, PoolError::Unsuitable),
    ] {
        assert_eq!(pool(first, length), Err(error), "{first:?}/{length}");
    }
}

#[test]
fn no_pool_of_any_length_has_a_public_address() {
    // Every prefix of 8 to 20 bits that can be one, by the ends of each /24 within it.
    for length in 8..=20 {
        for network in 0..1_u32 << length {
            let first = Ipv4Addr::from_bits(network << (32 - length));
            let Ok(pool) = Pool::new(first, u8::try_from(length).unwrap()) else {
                continue;
            };
            let last = pool.last().to_bits();
            assert!(
                (first.to_bits()..=last).step_by(256).all(|bits| {
                    crate::address::check(Ipv4Addr::from_bits(bits).into()).is_err()
                })
            );
        }
    }
}

#[test]
fn addresses_and_indices_are_each_others_inverse() {
    for length in [15, 24, 29, 30] {
        let pool = pool([198, 18, 0, 0], length).unwrap();
        assert_eq!(pool.size(), (1 << (32 - length)) - 2);
        for index in 0..pool.size() {
            let address = pool.address(index).unwrap();
            assert!(pool.contains(address));
            assert_eq!(pool.index(address), Some(index));
        }
        assert_eq!(pool.address(pool.size()), None);
        assert_eq!(pool.address(usize::MAX), None);
    }
}

#[test]
fn the_ends_of_a_pool_are_never_given() {
    let pool = pool([10, 0, 0, 4], 30).unwrap();
    for (address, is_within, index) in [
        ([10, 0, 0, 3], false, None),
        ([10, 0, 0, 4], true, None),
        ([10, 0, 0, 5], true, Some(0)),
        ([10, 0, 0, 6], true, Some(1)),
        ([10, 0, 0, 7], true, None),
        ([10, 0, 0, 8], false, None),
        ([10, 0, 1, 5], false, None),
        ([255, 255, 255, 255], false, None),
        ([0, 0, 0, 0], false, None),
    ] {
        assert_eq!(pool.contains(address.into()), is_within);
        assert_eq!(pool.index(address.into()), index);
    }
}
