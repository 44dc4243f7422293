//! The names of nodes, packed one behind the other: a byte for the length, then the name. Most are short, and there may be millions.

use crate::errno::Errno;

/// Unused bytes below which packing is not worth the while.
const FEW: usize = 64 << 10;

/// Where a name is, or nowhere (the default).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NameAt(u32);

/// All names.
#[derive(Debug)]
pub(super) struct Names {
    bytes: Vec<u8>,
    unused: usize,
}

impl NameAt {
    pub(super) const NOWHERE: Self = Self(0);
}

impl Names {
    pub(super) fn new() -> Self {
        // No name begins at 0.
        Self {
            bytes: vec![0],
            unused: 0,
        }
    }

    /// Keeps a name. `ENAMETOOLONG` beyond 255 bytes, `ENFILE` beyond 4 GiB of names.
    pub(super) fn put(&mut self, name: &[u8]) -> Result<NameAt, Errno> {
        let length = u8::try_from(name.len()).map_err(|_| Errno::ENAMETOOLONG)?;
        let at = u32::try_from(self.bytes.len()).map_err(|_| Errno::ENFILE)?;
        self.bytes.push(length);
        self.bytes.extend_from_slice(name);
        Ok(NameAt(at))
    }

    /// The name there.
    pub(super) fn get(&self, at: NameAt) -> Option<&[u8]> {
        let begin = usize::try_from(at.0).ok().filter(|begin| *begin > 0)?;
        let length = usize::from(*self.bytes.get(begin)?);
        self.bytes.get(begin + 1..begin + 1 + length)
    }

    /// The name there is no longer needed.
    pub(super) fn discard(&mut self, at: NameAt) {
        self.unused += self.get(at).map_or(0, |name| name.len() + 1);
    }

    /// Whether [`Self::pack`] would free half and more.
    pub(super) fn is_sparse(&self) -> bool {
        self.unused > FEW && self.unused > self.bytes.len() / 2
    }

    /// Keeps what is at `places`, which are changed, and nothing else.
    pub(super) fn pack<'a>(&mut self, places: impl Iterator<Item = &'a mut NameAt>) {
        let mut packed = Self::new();
        packed.bytes.reserve(self.bytes.len() - self.unused);
        for place in places {
            // What fitted before fits now.
            *place = self
                .get(*place)
                .and_then(|name| packed.put(name).ok())
                .unwrap_or_default();
        }
        *self = packed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_come_back() {
        let mut names = Names::new();
        let lengths = [1, 2, 200, 255];
        let places = lengths.map(|length| names.put(&vec![b'x'; length]).unwrap());
        for (place, length) in places.iter().zip(lengths) {
            assert_eq!(names.get(*place).unwrap().len(), length);
        }
        assert_eq!(names.put(&[b'x'; 256]), Err(Errno::ENAMETOOLONG));
        assert_eq!(names.get(NameAt::default()), None);
    }

    #[test]
    fn packing_keeps_what_is_in_use() {
        let mut names = Names::new();
        let mut places: Vec<_> = (0..20_000)
            .map(|number| names.put(format!("name{number}").as_bytes()).unwrap())
            .collect();
        assert!(!names.is_sparse());
        for place in places.drain(..12_000) {
            names.discard(place);
        }
        assert!(names.is_sparse());
        let before = names.bytes.len();
        names.pack(places.iter_mut());
        assert!(names.bytes.len() < before / 2);
        assert!(!names.is_sparse());
        for (place, number) in places.iter().zip(12_000..) {
            assert_eq!(
                names.get(*place).unwrap(),
                format!("name{number}").as_bytes()
            );
        }
    }
}
