use super::*;
use crate::testkit::Driver;

/// Gives 1, 2, 3, …; fails once `left` bytes were given.
struct Counter {
    next: u8,
    left: usize,
}

impl EntropySource for Counter {
    fn fill(&mut self, data: &mut [u8]) -> io::Result<()> {
        self.left = self
            .left
            .checked_sub(data.len())
            .ok_or(io::ErrorKind::Other)?;
        for byte in data {
            self.next = self.next.wrapping_add(1);
            *byte = self.next;
        }
        Ok(())
    }
}

fn counter(left: usize) -> Driver {
    Driver::running(Box::new(Rng::new(Counter { next: 0, left })))
}

crate::device_contract_tests!(|| Rng::new(Counter {
    next: 0,
    left: usize::MAX
}));

#[test]
fn fills_all_buffers_of_a_request_in_order() {
    let mut driver = counter(usize::MAX);
    let response = driver.request(0, &[], &[3, 0, 4]);
    assert_eq!(response.written, 7);
    assert_eq!(response.data, [1, 2, 3, 4, 5, 6, 7]);
    assert!(driver.line.take());
}

#[test]
fn a_huge_request_gets_the_cap() {
    let mut driver = counter(usize::MAX);
    let response = driver.request(0, &[], &[1 << 20]);
    assert_eq!(usize::try_from(response.written).unwrap(), MAX_REQUEST);
    let (given, rest) = response.data.split_at(MAX_REQUEST);
    assert!(
        given
            .iter()
            .zip(1..)
            .all(|(byte, n): (&u8, usize)| usize::from(*byte) == n % 256)
    );
    assert!(rest.iter().all(|byte| *byte == 0xaa));
}

#[test]
fn a_request_without_room_comes_back_empty() {
    let mut driver = counter(usize::MAX);
    assert_eq!(driver.request(0, &[&[1, 2, 3]], &[]).written, 0);
    assert_eq!(driver.request(0, &[], &[2]).data, [1, 2]);
}

#[test]
fn a_source_that_fails_stops_the_device() {
    let mut driver = counter(4);
    let buffer = driver.writable(8);
    driver.push(0, 0, &[buffer]);
    driver.kick(0);
    driver.wait_needs_reset();
    assert!(driver.transport.failure().unwrap().contains("host"));
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
#[test]
fn the_system_gives_different_bytes_each_time() {
    let mut driver = Driver::running(Box::new(Rng::new(OsEntropy)));
    let first = driver.request(0, &[], &[32]).data;
    assert_ne!(first, driver.request(0, &[], &[32]).data);
}
