//! Files of the guest, read and written through the API.

use anyhow::Result;
use sandbox::Error;
use sandbox::agent::AgentError;

use crate::fixture::{Fixture, cases};

const ENOENT: i32 = 2;

cases!(Guest: content_and_mode_come_back, replaces_a_file, what_cannot_be_read);

async fn content_and_mode_come_back(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let content: Vec<u8> = (0..=255).cycle().take(1_000_001).collect();
    guest
        .sandbox
        .write_file("/tmp/file", 0o750, &content)
        .await?;
    assert!(guest.sandbox.read_file("/tmp/file", 2 << 20).await? == content);
    assert_eq!(
        guest.answer("stat -c '%a %s' /tmp/file").await?,
        "750 1000001"
    );
    Ok(())
}

async fn replaces_a_file(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    for content in ["the first and longer one", "the second", ""] {
        guest
            .sandbox
            .write_file("/tmp/replaced", 0o644, content.as_bytes())
            .await?;
        assert_eq!(guest.answer("cat /tmp/replaced").await?, content);
    }
    Ok(())
}

async fn what_cannot_be_read(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let missing = guest.sandbox.read_file("/no/such/file", 10).await;
    assert!(
        matches!(
            missing,
            Err(Error::Agent(AgentError::File { errno: ENOENT }))
        ),
        "{missing:?}"
    );
    let larger = guest.sandbox.read_file("/etc/passwd", 10).await;
    assert!(
        matches!(
            larger,
            Err(Error::Agent(AgentError::TooLarge { limit: 10 }))
        ),
        "{larger:?}"
    );
    // A read that does not end by itself is no file to be read as a whole.
    let device = guest.sandbox.read_file("/dev/zero", 10).await;
    assert!(device.is_err(), "{device:?}");
    Ok(())
}
