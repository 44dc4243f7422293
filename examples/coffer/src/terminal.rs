//! The terminal that `coffer` runs on.

use std::io::IsTerminal as _;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use sandbox::protocol::TerminalSize;

/// Whether both standard input and output are a terminal.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The size of the terminal; 24 by 80 where it cannot be told.
pub(crate) fn size() -> TerminalSize {
    let size = tcgetwinsize(rustix::stdio::stdout()).ok();
    match size.filter(|size| size.ws_row > 0 && size.ws_col > 0) {
        Some(size) => TerminalSize {
            rows: size.ws_row,
            columns: size.ws_col,
        },
        None => TerminalSize {
            rows: 24,
            columns: 80,
        },
    }
}

/// Hands every key to the guest; dropping it puts the terminal back as it was.
#[derive(Debug)]
pub(crate) struct RawMode(Termios);

impl RawMode {
    /// Switches the terminal; `None` when standard input is none.
    pub(crate) fn enter() -> Option<Self> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing is left to be done when the terminal is gone.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}
