//! The whole from the other side of the socket: a front-end with memory and rings of its own.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use fsshare::{Config, Rules};
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::desc::split::{Descriptor, VirtqUsedElem};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryBackend as _};
use vmm_sys_util::eventfd::EventFd;

use super::*;

const MEMORY: usize = 1 << 20;
/// The parts of the queue, zeros at first. Requests and replies are above them.
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const REQUEST: u64 = 0x8_0000;
const REPLY: u64 = 0x9_0000;
const REPLY_LEN: u32 = 0x1000;
const QUEUE_LEN: u16 = 16;
/// The queue of the second thread.
const QUEUE: usize = 2;

/// Numbers of `fuse.h`.
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const INIT: u32 = 26;
const ROOT: u64 = 1;

/// A machine monitor with memory for its guest, connected.
struct Machine {
    memory: GuestMemoryMmap,
    kick: EventFd,
    call: EventFd,
    served: u16,
    _frontend: Frontend,
}

impl Machine {
    fn new(socket: &Path, features: u64) -> Self {
        let file = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(file);
        file.set_len(MEMORY as u64).unwrap();
        let ranges = [(GuestAddress(0), MEMORY, Some(FileOffset::new(file, 0)))];
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).unwrap();
        let host = memory.get_host_address(GuestAddress(0)).unwrap() as u64;

        let begin = Instant::now();
        let mut frontend = loop {
            match Frontend::connect(socket, 1 + QUEUE as u64) {
                Ok(frontend) => break frontend,
                Err(error) => assert!(begin.elapsed() < Duration::from_secs(10), "{error}"),
            }
        };
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        frontend.set_features(offered & features).unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(protocol).unwrap();
        assert_eq!(frontend.get_queue_num().unwrap(), 1 + QUEUE as u64);
        let region = memory.find_region(GuestAddress(0)).unwrap();
        let region = VhostUserMemoryRegionInfo::from_guest_region(region).unwrap();
        frontend.set_mem_table(&[region]).unwrap();

        let (kick, call) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
        let config = VringConfigData {
            queue_max_size: QUEUE_LEN,
            queue_size: QUEUE_LEN,
            flags: 0,
            desc_table_addr: host + DESCRIPTORS,
            used_ring_addr: host + USED,
            avail_ring_addr: host + AVAILABLE,
            log_addr: None,
        };
        frontend.set_vring_num(QUEUE, QUEUE_LEN).unwrap();
        frontend.set_vring_addr(QUEUE, &config).unwrap();
        frontend.set_vring_base(QUEUE, 0).unwrap();
        frontend.set_vring_call(QUEUE, &call).unwrap();
        frontend.set_vring_kick(QUEUE, &kick).unwrap();
        frontend.set_vring_enable(QUEUE, true).unwrap();
        Self {
            memory,
            kick,
            call,
            served: 0,
            _frontend: frontend,
        }
    }

    /// The error number of a reply and what is behind its head.
    fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> (i32, Vec<u8>) {
        let len = u32::try_from(40 + body.len()).unwrap();
        let mut request = Vec::new();
        request.extend(len.to_le_bytes());
        request.extend(opcode.to_le_bytes());
        request.extend(u64::from(self.served).to_le_bytes());
        request.extend(node.to_le_bytes());
        request.extend([0; 16]);
        request.extend(body);
        self.memory
            .write_slice(&request, GuestAddress(REQUEST))
            .unwrap();
        let written = self.exchange(len);
        if written == 0 {
            return (0, Vec::new());
        }
        let mut reply = vec![0; usize::try_from(written).unwrap()];
        self.memory
            .read_slice(&mut reply, GuestAddress(REPLY))
            .unwrap();
        let (head, rest) = reply.split_first_chunk::<16>().unwrap();
        let number = |at: usize| <[u8; 4]>::try_from(&head[at..at + 4]).unwrap();
        assert_eq!(u32::from_le_bytes(number(0)), written);
        (i32::from_le_bytes(number(4)), rest.to_vec())
    }

    /// Puts a request of `len` bytes into the ring, and waits for its used entry.
    fn exchange(&mut self, len: u32) -> u32 {
        let memory = &self.memory;
        let put = |at: u64, value: u16| memory.store(value, GuestAddress(at), SeqCst).unwrap();
        let chain = [
            Descriptor::new(REQUEST, len, 1, 1),
            Descriptor::new(REPLY, REPLY_LEN, 2, 0),
        ];
        for (at, descriptor) in (DESCRIPTORS..).step_by(16).zip(chain) {
            memory.write_obj(descriptor, GuestAddress(at)).unwrap();
        }
        let slot = u64::from(self.served % QUEUE_LEN);
        put(AVAILABLE + 4 + 2 * slot, 0);
        // With event indices: tell of this one.
        put(AVAILABLE + 4 + 2 * u64::from(QUEUE_LEN), self.served);
        self.served += 1;
        put(AVAILABLE + 2, self.served);
        self.kick.write(1).unwrap();
        self.call.read().unwrap();
        let used: u16 = memory.load(GuestAddress(USED + 2), SeqCst).unwrap();
        assert_eq!(used, self.served);
        let entry = GuestAddress(USED + 4 + 8 * slot);
        memory.read_obj::<VirtqUsedElem>(entry).unwrap().len()
    }
}

#[test]
fn another_monitors_guest_has_the_share_and_its_rules() {
    for features in [u64::MAX, !(1 << VIRTIO_RING_F_EVENT_IDX)] {
        has_the_share(features);
    }
}

fn has_the_share(features: u64) {
    let place = tempfile::tempdir().unwrap();
    let (directory, socket) = (place.path().join("shared"), place.path().join("socket"));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("file"), "content").unwrap();
    std::fs::write(directory.join(".env"), "SECRET=1").unwrap();
    let server = Server::new(Config {
        rules: Rules::usual(),
        ..Config::new(File::open(&directory).unwrap().into())
    });
    let at = socket.clone();
    let served = std::thread::spawn(move || serve(server.unwrap(), QUEUE, &at));

    let mut machine = Machine::new(&socket, features);
    // Major, minor, read-ahead and flags of `fuse_init_in`.
    let init: Vec<u8> = [7_u32, 38, 0, 0]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    let (error, reply) = machine.ask(INIT, 0, &init);
    assert_eq!((error, reply.first()), (0, Some(&7)));
    let (error, reply) = machine.ask(GETATTR, ROOT, &[0; 16]);
    assert_eq!(error, 0);
    assert!(!reply.is_empty());
    let (error, entry) = machine.ask(LOOKUP, ROOT, b"file\0");
    assert_eq!(error, 0);
    // Size, in the attributes of `fuse_entry_out`.
    assert_eq!(entry.get(48..56), Some(&7_u64.to_le_bytes()[..]));
    assert_eq!(machine.ask(LOOKUP, ROOT, b".env\0").0, -2);
    assert_eq!(machine.ask(LOOKUP, ROOT, b"..\0").0, -22);
    // What is no request comes back without a reply, and the next is answered.
    assert_eq!(machine.exchange(3), 0);
    assert_eq!(machine.ask(LOOKUP, ROOT, b"file\0").0, 0);

    // Around the ring.
    for _ in 0..2 * QUEUE_LEN {
        assert_eq!(machine.ask(LOOKUP, ROOT, b"nothing\0").0, -2);
    }
    drop(machine);
    served.join().unwrap().unwrap();
}
