//! Names as the most forgiving file system compares them.

use unicode_normalization::UnicodeNormalization as _;

/// A name without what some file system ignores: case and Unicode form (APFS, NTFS, ext4 with `casefold`), ignorable characters (HFS+, ext4
/// with `casefold`), trailing dots and spaces (Windows).
pub(super) fn fold(name: &str) -> String {
    let name = name.trim_end_matches(['.', ' ']);
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let visible = name.chars().filter(|symbol| !is_ignorable(*symbol));
    let folded = caseless::default_case_fold_str(&visible.nfkc().collect::<String>());
    // What only looks like a slash parts no names, to a pattern either.
    let folded: String = folded
        .nfkc()
        .map(|symbol| if symbol == '/' { '\0' } else { symbol })
        .collect();
    folded.trim_end_matches(['.', ' ']).to_owned()
}

/// `Default_Ignorable_Code_Point` of the Unicode character database (DerivedCoreProperties.txt, 16.0).
const fn is_ignorable(symbol: char) -> bool {
    matches!(
        symbol,
        '\u{AD}'
            | '\u{34F}'
            | '\u{61C}'
            | '\u{115F}'..='\u{1160}'
            | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FEFF}'
            | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFF8}'
            | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_system_may_ignore_makes_no_difference() {
        for (name, folded) in [
            (".GIT", ".git"),
            (".git. . ", ".git"),
            (".g\u{200C}it", ".git"),
            (".gi\u{E0101}t\u{FEFF}", ".git"),
            (".\u{FF47}it", ".git"),
            ("K\u{212A}", "kk"),
            ("STRA\u{DF}E", "strasse"),
            ("e\u{301}", "\u{E9}"),
            ("\u{C9}", "\u{E9}"),
            (".\u{1D406}it", ".git"),
            ("\u{2122}", "tm"),
            ("\u{2100}.pem", "a\0c.pem"),
            ("a b", "a b"),
            ("...", ""),
        ] {
            assert_eq!(fold(name), folded, "{name:?}");
        }
    }

    #[test]
    fn what_differs_in_case_only_makes_no_difference() {
        // A dotless i is a small one of "I" to Turkish readers and to no file system; the others are younger than all tables of file systems.
        let has_case_here = |small: &char| !matches!(small, '\u{131}' | '\u{A7CB}'..='\u{A7DC}');
        for small in (0..0x1_0000)
            .filter_map(char::from_u32)
            .filter(has_case_here)
        {
            let mut large = small.to_uppercase();
            if let (Some(large), None) = (large.next(), large.next()) {
                let (small, large) = (small.to_string(), large.to_string());
                assert_eq!(fold(&small), fold(&large), "{small:?}");
            }
        }
    }
}
