//! Pages of RAM that the guest wrote. What devices write, KVM does not see; they keep their own book.

use hv_core::{DirtyLog, DirtyPages, HvError, HvErrorKind, RamRange, Result};

use crate::vm::KvmPartition;
use crate::{failed, memory};

const PAGE: u64 = 4096;

impl KvmPartition {
    fn take_range(&self, slot: u32, range: RamRange) -> Result<DirtyPages> {
        let size =
            usize::try_from(range.size).map_err(|_| HvError::invalid("KVM_GET_DIRTY_LOG"))?;
        let bitmap = self.0.fd.get_dirty_log(slot, size);
        Ok(DirtyPages {
            start: range.start,
            page_size: PAGE,
            bitmap: bitmap.map_err(failed("KVM_GET_DIRTY_LOG"))?,
        })
    }
}

impl DirtyLog for KvmPartition {
    fn start(&self) -> Result<()> {
        let mut tracking = self.0.tracking();
        memory::track_ram(&self.0, true)?;
        *tracking = true;
        Ok(())
    }

    fn take(&self) -> Result<Vec<DirtyPages>> {
        let tracking = self.0.tracking();
        if !*tracking {
            return Err(HvError::new(
                "take dirty pages that nobody tracks",
                HvErrorKind::InvalidState,
            ));
        }
        let slots = (0..).zip(self.0.ram.ranges());
        slots
            .map(|(slot, range)| self.take_range(slot, range))
            .collect()
    }

    fn stop(&self) -> Result<()> {
        let mut tracking = self.0.tracking();
        memory::track_ram(&self.0, false)?;
        *tracking = false;
        Ok(())
    }
}
