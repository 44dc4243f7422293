//! Pages of RAM that the guest wrote.

use std::collections::BTreeSet;

use super::Call;
use super::vm::FakePartition;
use crate::{DirtyLog, DirtyPages, HvError, HvErrorKind, RamRange, Result};

impl DirtyLog for FakePartition {
    fn start(&self) -> Result<()> {
        self.0.host.enter(Call::DirtyLog)?;
        self.0.inner().written = Some(BTreeSet::new());
        Ok(())
    }

    fn take(&self) -> Result<Vec<DirtyPages>> {
        self.0.host.enter(Call::DirtyLog)?;
        let mut inner = self.0.inner();
        let Some(written) = &mut inner.written else {
            return Err(HvError::new("dirty log is off", HvErrorKind::InvalidState));
        };
        let written = std::mem::take(written);
        let page = self.0.host.options.granule;
        let ranges = self.0.ram.ranges().into_iter();
        Ok(ranges.map(|range| pages(range, page, &written)).collect())
    }

    fn stop(&self) -> Result<()> {
        self.0.inner().written = None;
        Ok(())
    }
}

fn pages(range: RamRange, page_size: u64, written: &BTreeSet<u64>) -> DirtyPages {
    let words = range.size.div_ceil(page_size * 64);
    let mut bitmap = vec![0; usize::try_from(words).unwrap_or(0)];
    for address in written.range(range.start..range.start + range.size) {
        let page = (address - range.start) / page_size;
        let word = usize::try_from(page / 64).ok();
        if let Some(word) = word.and_then(|word| bitmap.get_mut(word)) {
            *word |= 1 << (page % 64);
        }
    }
    DirtyPages {
        start: range.start,
        page_size,
        bitmap,
    }
}
