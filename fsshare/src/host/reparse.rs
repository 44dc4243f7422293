//! Reparse points, by which Windows marks everything that is not what it seems ([MS-FSCC] 2.1.2).
//!
//! Nothing here is ever followed. A symbolic link is shown with its text; one that the guest makes is kept as the Linux subsystem of Windows
//! keeps them (`IO_REPARSE_TAG_LX_SYMLINK`): its text is any, it takes no privilege, and the host's programs do not follow it either.

use super::Kind;
use crate::errno::Errno;

/// `IO_REPARSE_TAG_SYMLINK`.
const SYMLINK: u32 = 0xA000_000C;
/// `IO_REPARSE_TAG_LX_SYMLINK`.
const LX_SYMLINK: u32 = 0xA000_001D;
/// `IO_REPARSE_TAG_MOUNT_POINT`: a junction, or another volume.
const MOUNT_POINT: u32 = 0xA000_0003;

/// Tag, length of what follows the head, and two bytes of nothing.
const HEAD: usize = 8;
/// Offsets and lengths of two names, and flags.
const SYMLINK_HEAD: usize = 12;
/// The version that the text of a Linux symbolic link follows.
const LX_VERSION: u32 = 2;

/// What a reparse point is to the guest. One that leads to another place is not to be had.
pub(super) fn kind(tag: u32) -> Result<Kind, Errno> {
    match tag {
        SYMLINK | LX_SYMLINK => Ok(Kind::Symlink),
        MOUNT_POINT => Err(Errno::EXDEV),
        // Sockets, and files whose content is elsewhere: opened as they are they would show something else.
        _ => Ok(Kind::Special),
    }
}

/// The text of a symbolic link, of either sort.
pub(super) fn link_text(data: &[u8]) -> Option<Vec<u8>> {
    let len = usize::from(u16_at(data, 4)?);
    let body = data.get(HEAD..HEAD.checked_add(len)?)?;
    match u32_at(data, 0)? {
        LX_SYMLINK if u32_at(body, 0)? == LX_VERSION => body.get(4..).map(<[u8]>::to_vec),
        SYMLINK => {
            let names = body.get(SYMLINK_HEAD..)?;
            let name = |at| {
                let (from, len) = (u16_at(body, at)?, u16_at(body, at + 2)?);
                let from = usize::from(from);
                names.get(from..from.checked_add(len.into())?)
            };
            // The one for people, or else the one for the kernel.
            let text = name(4)
                .filter(|text| !text.is_empty())
                .or_else(|| name(0))?;
            let units = text.chunks_exact(2).filter_map(|unit| u16_at(unit, 0));
            let text = String::from_utf16(&units.collect::<Vec<_>>()).ok()?;
            Some(text.replace('\\', "/").into_bytes())
        }
        _ => None,
    }
}

/// The data of a symbolic link that the guest makes.
pub(super) fn new_link(target: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(target.len().checked_add(4)?).ok()?;
    let mut data = Vec::with_capacity(HEAD + usize::from(len));
    data.extend_from_slice(&LX_SYMLINK.to_le_bytes());
    data.extend_from_slice(&len.to_le_bytes());
    data.extend_from_slice(&[0; 2]);
    data.extend_from_slice(&LX_VERSION.to_le_bytes());
    data.extend_from_slice(target);
    Some(data)
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A symbolic link of Windows with these two names, the first for the kernel.
    fn windows_link(substitute: &str, print: &str) -> Vec<u8> {
        let units =
            |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        let (substitute, print) = (units(substitute), units(print));
        let short = |len: usize| u16::try_from(len).unwrap().to_le_bytes();
        let body = [
            &short(0)[..],
            &short(substitute.len()),
            &short(substitute.len()),
            &short(print.len()),
            &1_u32.to_le_bytes(),
            &substitute,
            &print,
        ]
        .concat();
        [
            &SYMLINK.to_le_bytes()[..],
            &short(body.len()),
            &[0; 2],
            &body,
        ]
        .concat()
    }

    #[test]
    fn a_guests_link_is_read_as_it_was_made() {
        for target in [
            &b"a"[..],
            b"../a/b",
            b"/etc/passwd",
            b"\xff\\x",
            &[b'x'; 4095],
        ] {
            let data = new_link(target).unwrap();
            assert_eq!(link_text(&data).as_deref(), Some(target));
        }
        assert_eq!(new_link(&[0; 65_536]), None);
    }

    #[test]
    fn a_link_of_windows_has_slashes() {
        for (substitute, print, expected) in [
            ("..\\a", "..\\a", "../a"),
            ("\\??\\C:\\x", "C:\\x", "C:/x"),
            ("b\\c", "", "b/c"),
        ] {
            let data = windows_link(substitute, print);
            assert_eq!(link_text(&data), Some(expected.into()));
        }
    }

    #[test]
    fn broken_data_is_no_link() {
        let whole = windows_link("a", "b");
        for len in 0..whole.len() {
            assert_eq!(link_text(whole.get(..len).unwrap()), None, "{len}");
        }
        let mut outside = whole.clone();
        outside[14] = 200; // length of the name for people
        assert_eq!(link_text(&outside), link_text(&windows_link("a", "")));
        let mut version = new_link(b"a").unwrap();
        version[8] = 1;
        assert_eq!(link_text(&version), None);
    }

    #[test]
    fn only_links_are_links_and_no_other_place_is_reached() {
        for (tag, expected) in [
            (SYMLINK, Ok(Kind::Symlink)),
            (LX_SYMLINK, Ok(Kind::Symlink)),
            (MOUNT_POINT, Err(Errno::EXDEV)),
            (0x8000_0023, Ok(Kind::Special)), // AF_UNIX
            (0x9000_001A, Ok(Kind::Special)), // CLOUD
            (0x8000_0013, Ok(Kind::Special)), // DEDUP
            (0, Ok(Kind::Special)),
        ] {
            assert_eq!(kind(tag), expected, "{tag:x}");
        }
    }
}
