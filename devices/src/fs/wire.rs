//! Configuration of virtio-fs (virtio 1.3, section 5.11.4).

/// Longest tag in bytes.
pub const MAX_TAG: usize = 36;
/// Bytes of the configuration space; the field behind them belongs to notifications.
pub const CONFIG_LEN: usize = MAX_TAG + 4;

/// The configuration space: the name that the guest mounts by, and how many request queues there
/// are. `None` when `tag` is empty, longer than [`MAX_TAG`], or has a NUL byte in it.
#[must_use]
pub fn config(tag: &str, request_queues: u32) -> Option<[u8; CONFIG_LEN]> {
    let bytes = tag.as_bytes();
    let mut config = [0; CONFIG_LEN];
    let (tag_field, queues) = config.split_at_mut(MAX_TAG);
    if bytes.is_empty() || bytes.contains(&0) {
        return None;
    }
    tag_field.get_mut(..bytes.len())?.copy_from_slice(bytes);
    queues.copy_from_slice(&request_queues.to_le_bytes());
    Some(config)
}
