//! The file system device through the mock driver, with servers that know no FUSE.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::*;
use crate::testkit::Driver;
use crate::virtio::{Reader, VirtioDevice as _, Writer};

/// The first request queue; 0 is the high-priority queue.
const REQUESTS: usize = 1;

/// Answers with the request backwards; what begins with `f` gets no reply, as a FORGET.
#[derive(Default)]
struct Mirror {
    seen: Mutex<Vec<Vec<u8>>>,
    resets: Mutex<u32>,
}

impl FsBackend for Mirror {
    fn handle(&self, request: &mut Reader<'_>, reply: &mut Writer<'_>) -> usize {
        let mut bytes = vec![0; request.remaining()];
        request.read(&mut bytes);
        self.seen.lock().unwrap().push(bytes.clone());
        bytes.reverse();
        reply.write(&bytes);
        if bytes.last() == Some(&b'f') {
            0
        } else {
            bytes.len()
        }
    }

    fn reset(&self) {
        *self.resets.lock().unwrap() += 1;
    }
}

fn device(backend: &Arc<Mirror>) -> Fs {
    Fs::new("work", 2, Arc::clone(backend) as Arc<dyn FsBackend>).unwrap()
}

crate::device_contract_tests!(|| device(&Arc::default()));

#[test]
fn the_configuration_names_the_share() {
    for (tag, good) in [
        ("work", true),
        ("", false),
        ("a\0b", false),
        (&"x".repeat(36), true),
        (&"x".repeat(37), false),
        ("größe", true),
    ] {
        let backend = Arc::new(Mirror::default());
        let device = Fs::new(tag, 3, backend);
        assert_eq!(device.is_ok(), good, "{tag:?}");
        assert_eq!(wire::config(tag, 3).is_some(), good, "{tag:?}");
    }
    let config = wire::config("work", 0x0403_0201).unwrap();
    assert_eq!(&config[..5], b"work\0");
    assert_eq!(config[36..], [1, 2, 3, 4]);
    for queues in [0, MAX_REQUEST_QUEUES + 1, u32::MAX] {
        let refused = Fs::new("work", queues, Arc::new(Mirror::default())).err();
        assert_eq!(refused, Some(FsError::RequestQueues(queues)));
    }
}

#[test]
fn a_request_of_a_mebibyte_fits_in_a_queue() {
    // Linux sets four descriptors aside for a request's headers (`FUSE_HEADER_OVERHEAD`).
    let wanted = 1024 / 4 + 4;
    let sizes = device(&Arc::default()).model().queue_sizes;
    assert!(
        sizes[REQUESTS..].iter().all(|size| *size >= wanted),
        "{sizes:?}"
    );
}

#[test]
fn requests_are_answered_on_every_queue() {
    let mut driver = Driver::running(Box::new(device(&Arc::default())));
    for queue in 0..3 {
        let answer = driver.request(queue, &[b"abc", b"de"], &[2, 10]);
        assert_eq!(answer.written, 5);
        assert_eq!(&answer.data[..5], b"edcba");
    }
}

#[test]
fn a_request_without_reply_comes_back_empty() {
    let backend = Arc::new(Mirror::default());
    let mut driver = Driver::running(Box::new(device(&backend)));
    assert_eq!(driver.request(0, &[b"forget"], &[]).written, 0);
    assert_eq!(driver.request(REQUESTS, &[b"forget"], &[64]).written, 0);
    assert_eq!(
        backend.seen.lock().unwrap().as_slice(),
        [b"forget", b"forget"]
    );
}

#[test]
fn a_reply_longer_than_the_buffer_is_cut() {
    let mut driver = Driver::running(Box::new(device(&Arc::default())));
    let answer = driver.request(REQUESTS, &[b"abcdef"], &[4]);
    assert_eq!((answer.written, answer.data.as_slice()), (4, &b"fedc"[..]));
    assert_eq!(driver.request(REQUESTS, &[], &[4]).written, 0);
    assert_eq!(driver.request(REQUESTS, &[b"abc"], &[]).written, 0);
}

#[test]
fn a_reset_of_the_driver_reaches_the_server() {
    let backend = Arc::new(Mirror::default());
    let mut driver = Driver::running(Box::new(device(&backend)));
    let before = *backend.resets.lock().unwrap();
    driver.settle();
    assert_eq!(
        *backend.resets.lock().unwrap(),
        before,
        "a pause is no reset"
    );
    driver.reset();
    assert_eq!(*backend.resets.lock().unwrap(), before + 1);
    driver.init(u64::MAX);
    assert_eq!(driver.request(REQUESTS, &[b"x"], &[1]).written, 1);
}

/// Holds requests that begin with `w` until it is told to go on.
struct Slow {
    entered: Mutex<Sender<()>>,
    go_on: Mutex<Receiver<()>>,
}

impl FsBackend for Slow {
    fn handle(&self, request: &mut Reader<'_>, _reply: &mut Writer<'_>) -> usize {
        let mut kind = [0];
        request.read(&mut kind);
        if kind == *b"w" {
            self.entered.lock().unwrap().send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
        0
    }

    fn reset(&self) {}
}

#[test]
fn a_slow_request_holds_up_its_own_queue_only() {
    let ((entered, has_entered), (go, go_on)) = (channel(), channel());
    let slow = Slow {
        entered: Mutex::new(entered),
        go_on: Mutex::new(go_on),
    };
    let device = Fs::new("work", 2, Arc::new(slow)).unwrap();
    let mut driver = Driver::running(Box::new(device));
    let wait = driver.readable(b"wait");
    driver.push(REQUESTS, 0, &[wait]);
    driver.kick(REQUESTS);
    has_entered.recv().unwrap();
    driver.request(REQUESTS + 1, &[b"quick"], &[]);
    assert_eq!(driver.rings[REQUESTS].pop_used(), None);
    go.send(()).unwrap();
    driver.wait_used(REQUESTS);
}

/// Holds requests that begin with `w` until it is told to go on, and counts the others, each of which takes a while.
struct Steps {
    entered: Mutex<Sender<()>>,
    go_on: Mutex<Receiver<()>>,
    done: Arc<AtomicU16>,
}

impl FsBackend for Steps {
    fn handle(&self, request: &mut Reader<'_>, _reply: &mut Writer<'_>) -> usize {
        let mut kind = [0];
        request.read(&mut kind);
        if kind == *b"w" {
            self.entered.lock().unwrap().send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        } else {
            std::thread::sleep(Duration::from_millis(10));
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        0
    }

    fn reset(&self) {}
}

#[test]
fn a_stop_waits_for_the_call_at_hand_of_each_queue_and_not_for_more() {
    const STEPS: u16 = 200;
    let ((entered, has_entered), (go, go_on)) = (channel(), channel());
    let done = Arc::<AtomicU16>::default();
    let steps = Steps {
        entered: Mutex::new(entered),
        go_on: Mutex::new(go_on),
        done: Arc::clone(&done),
    };
    let device = Fs::new("work", 2, Arc::new(steps)).unwrap();
    let mut driver = Driver::running(Box::new(device));
    let (wait, step) = (driver.readable(b"wait"), driver.readable(b"step"));
    driver.push(REQUESTS, 0, &[wait]);
    driver.kick(REQUESTS);
    has_entered.recv().unwrap();
    for head in 0..STEPS {
        driver.push(REQUESTS + 1, head, &[step]);
    }
    driver.kick(REQUESTS + 1);
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| driver.transport.pause());
        // Until the other queue's thread has ended, or has done all, while the first thread is held.
        let mut seen = None;
        while seen != Some(done.load(Ordering::Relaxed)) {
            seen = Some(done.load(Ordering::Relaxed));
            std::thread::sleep(Duration::from_millis(300));
        }
        assert!(!stop.is_finished());
        go.send(()).unwrap();
    });
    assert!(done.load(Ordering::Relaxed) < STEPS);
}

/// Answers when so many requests are there at once; without a byte if they do not come.
struct Together {
    wanted: usize,
    present: Mutex<usize>,
    all: Condvar,
}

impl FsBackend for Together {
    fn handle(&self, _: &mut Reader<'_>, reply: &mut Writer<'_>) -> usize {
        let mut present = self.present.lock().unwrap();
        *present += 1;
        self.all.notify_all();
        let (present, _) = self
            .all
            .wait_timeout_while(present, Duration::from_secs(10), |n| *n < self.wanted)
            .unwrap();
        let complete = *present >= self.wanted;
        if complete { reply.write(b"y") } else { 0 }
    }

    fn reset(&self) {}
}

#[test]
fn all_request_queues_are_served_at_once() {
    let wanted = usize::try_from(MAX_REQUEST_QUEUES).unwrap();
    let together = Together {
        wanted,
        present: Mutex::default(),
        all: Condvar::new(),
    };
    let device = Fs::new("work", MAX_REQUEST_QUEUES, Arc::new(together)).unwrap();
    let mut driver = Driver::running(Box::new(device));
    let queues = REQUESTS..REQUESTS + wanted;
    for queue in queues.clone() {
        let chain = [driver.readable(b"x"), driver.writable(1)];
        driver.push(queue, 0, &chain);
        driver.kick(queue);
    }
    for queue in queues {
        assert_eq!(driver.wait_used(queue).len, 1, "queue {queue}");
    }
}
