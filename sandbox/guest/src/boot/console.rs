//! One-line messages to the machine's console.

use std::io::Write;

/// Writes one line. The kernel gives PID 1 the console as its standard streams.
pub fn line(text: &str) {
    // One write, so that lines of the kernel do not come between. If the console refuses there is nobody to tell.
    let _ = std::io::stdout()
        .lock()
        .write_all(format!("cofferdam: {text}\n").as_bytes());
}

/// Writes an error with its causes as one line.
pub fn error(error: &dyn std::error::Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    line(&text);
}
