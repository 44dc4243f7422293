use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::session::{Handler, Wake};
use super::*;
use crate::testkit::Driver;
use crate::virtio::{Interrupt, Model, QueueSeat, VirtioDevice};

/// What a loop of either form runs: sends every wake-up to the test, which answers what to do.
struct Recorder {
    wakes: Sender<Wake>,
    orders: Receiver<Order>,
    sources: Vec<(u32, Event)>,
}

/// What the recorder does before it returns from a wake-up.
enum Order {
    Nothing,
    Remove(u32),
    Break,
}

impl Handler for Recorder {
    fn begin(&mut self, sources: &mut dyn Sources) -> ControlFlow<()> {
        for (token, event) in &self.sources {
            sources.add_event(*token, event).unwrap();
        }
        ControlFlow::Continue(())
    }

    fn wake(&mut self, wake: Wake, sources: &mut dyn Sources) -> ControlFlow<()> {
        self.wakes.send(wake).unwrap();
        match self.orders.recv().unwrap() {
            Order::Nothing => ControlFlow::Continue(()),
            Order::Remove(token) => {
                sources.remove_event(token).unwrap();
                assert!(sources.remove_event(token).is_err(), "removed twice");
                ControlFlow::Continue(())
            }
            Order::Break => ControlFlow::Break(()),
        }
    }
}

type Run = fn(&mut Recorder, &Event, &[Event]) -> io::Result<()>;

/// The loops that this host has.
fn loops() -> Vec<Run> {
    vec![
        #[cfg(target_os = "linux")]
        epoll::run::<Recorder>,
        threads::run::<Recorder>,
    ]
}

fn event() -> Event {
    Event::new().unwrap()
}

/// Runs a loop with two doorbells and a source with token 7; `script` sees its wake-ups.
fn with_loop(run: Run, script: impl FnOnce(&Bench)) {
    let (wakes, received) = channel();
    let (orders, given) = channel();
    let (stop, doorbells, source) = (event(), [event(), event()], event());
    let mut recorder = Recorder {
        wakes,
        orders: given,
        sources: vec![(7, source.clone())],
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| run(&mut recorder, &stop, &doorbells));
        script(&Bench {
            wakes: received,
            orders,
            stop: stop.clone(),
            doorbells: doorbells.clone(),
            source,
        });
        thread.join().unwrap().unwrap();
    });
}

struct Bench {
    wakes: Receiver<Wake>,
    orders: Sender<Order>,
    stop: Event,
    doorbells: [Event; 2],
    source: Event,
}

impl Bench {
    fn expect(&self, wake: Wake, order: Order) {
        let got = self.wakes.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(got, wake);
        self.orders.send(order).unwrap();
    }
}

#[test]
fn doorbells_and_sources_wake_the_handler_until_it_stops() {
    for run in loops() {
        with_loop(run, |bench| {
            for _ in 0..3 {
                bench.doorbells[1].signal();
                bench.expect(Wake::Queue(1), Order::Nothing);
                bench.source.signal();
                bench.expect(Wake::Source(7, Ready::READ), Order::Nothing);
                bench.doorbells[0].signal();
                bench.expect(Wake::Queue(0), Order::Nothing);
            }
            bench.stop.signal();
            bench.expect(Wake::Stop, Order::Break);
        });
    }
}

#[test]
fn a_source_that_is_removed_wakes_no_more() {
    for run in loops() {
        with_loop(run, |bench| {
            bench.doorbells[0].signal();
            bench.expect(Wake::Queue(0), Order::Remove(7));
            bench.source.signal();
            for _ in 0..3 {
                bench.doorbells[0].signal();
                bench.expect(Wake::Queue(0), Order::Nothing);
            }
            bench.stop.signal();
            bench.expect(Wake::Stop, Order::Break);
            assert!(bench.source.take(), "the signal is still there");
        });
    }
}

/// A service made of a closure a turn, with one or two queues.
struct Probe<F> {
    queues: usize,
    service: Parked<Turn<F>>,
    resets: Arc<AtomicUsize>,
}

struct Turn<F>(F);

/// What a turn is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Call {
    Started,
    Queue(usize),
    Source(u32, Ready),
}

trait Step: FnMut(Call, &mut Context<'_>) -> Result<(), Broken> + Send + 'static {}
impl<F: FnMut(Call, &mut Context<'_>) -> Result<(), Broken> + Send + 'static> Step for F {}

impl<F: Step> Service for Turn<F> {
    fn started(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        (self.0)(Call::Started, context)
    }

    fn queue(&mut self, index: usize, context: &mut Context<'_>) -> Result<(), Broken> {
        (self.0)(Call::Queue(index), context)
    }

    fn source(
        &mut self,
        token: u32,
        ready: Ready,
        context: &mut Context<'_>,
    ) -> Result<(), Broken> {
        (self.0)(Call::Source(token, ready), context)
    }
}

impl<F: Step> Probe<F> {
    fn new(queues: usize, step: F) -> Self {
        Self {
            queues,
            service: Parked::new(Turn(step)),
            resets: Arc::default(),
        }
    }
}

impl<F: Step> VirtioDevice for Probe<F> {
    fn model(&self) -> Model {
        Model {
            id: 0x3f,
            features: 0,
            queue_sizes: vec![4; self.queues],
            config_len: 0,
        }
    }

    fn read_config(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn start(&mut self, env: RunEnv) -> Result<Box<dyn Worker>, StartError> {
        self.service.start("probe", env)
    }

    fn reset(&mut self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
        assert!(self.service.with(|_| ()).is_some(), "must be at home");
    }
}

/// Gives everything back that comes on any queue.
fn echo(call: Call, context: &mut Context<'_>) -> Result<(), Broken> {
    if let Call::Queue(index) = call
        && let Some(queue) = context.queues.get(index)
    {
        while let Some(chain) = queue.pop()? {
            chain.finish(0)?;
        }
    }
    Ok(())
}

crate::device_contract_tests!(|| Probe::new(2, echo));

#[test]
fn every_queue_gets_a_turn_when_the_device_starts() {
    let (sender, calls) = channel();
    let mut driver = Driver::new(Box::new(Probe::new(
        2,
        move |call, context: &mut Context<'_>| {
            sender.send(call).unwrap();
            echo(call, context)
        },
    )));
    driver.init(u64::MAX);
    for _ in 0..3 {
        driver.transport.pause();
        let begin = [Call::Started, Call::Queue(0), Call::Queue(1)];
        assert_eq!(calls.try_iter().collect::<Vec<_>>(), begin);
        driver.transport.resume().unwrap();
    }
}

#[test]
fn buffers_that_came_during_a_pause_are_found() {
    let mut driver = Driver::running(Box::new(Probe::new(1, echo)));
    driver.transport.pause();
    let buffer = driver.writable(8);
    driver.push(0, 0, &[buffer]);
    assert_eq!(driver.rings[0].used_index(), 0);
    driver.transport.resume().unwrap();
    assert_eq!(driver.wait_used(0).id, 0);
}

#[test]
fn v10_a_queue_that_never_ends_starves_neither_others_nor_stop() {
    let mut driver = Driver::running(Box::new(Probe::new(2, echo)));
    let buffer = driver.writable(8);
    for head in 0..4 {
        driver.push(0, head, &[buffer]);
    }
    driver.kick(0);
    let mut ring = driver.rings[0].clone();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A driver that offers each buffer again as soon as it is back.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Some(used) = ring.pop_used() {
                    ring.push(u16::try_from(used.id).unwrap());
                }
            }
        });
        for _ in 0..20 {
            driver.push(1, 0, &[buffer]);
            driver.kick(1);
            assert_eq!(driver.wait_used(1).id, 0);
            driver.settle();
        }
        driver.transport.pause();
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn stop_ends_a_turn_after_the_chain_at_hand() {
    let (sender, turns) = channel();
    let device = Probe::new(1, move |call, context: &mut Context<'_>| {
        if let (Call::Queue(index), Some(queue)) = (call, context.queues.get(0)) {
            // Without end: a chain that is put back costs no budget.
            while let Some(chain) = queue.pop()? {
                chain.put_back();
                sender.send(index).unwrap();
            }
        }
        Ok(())
    });
    let mut driver = Driver::running(Box::new(device));
    let buffer = driver.writable(8);
    driver.push(0, 0, &[buffer]);
    driver.kick(0);
    assert_eq!(turns.recv(), Ok(0), "the turn began");
    let (stopped, states) = channel();
    std::thread::spawn(move || {
        driver.transport.pause();
        stopped.send(driver.transport.queue_states()).unwrap();
    });
    let states = states.recv_timeout(Duration::from_secs(20));
    let state = states.expect("the turn goes on for ever")[0];
    assert_eq!((state.next_avail, state.next_used), (0, 0), "it is left");
}

#[test]
fn a_panic_asks_for_a_reset_and_nothing_is_done_twice() {
    let device = Probe::new(1, |call, context: &mut Context<'_>| {
        let Call::Queue(_) = call else { return Ok(()) };
        let Some(queue) = context.queues.get(0) else {
            return Ok(());
        };
        while let Some(chain) = queue.pop()? {
            let poisoned = chain.writer().available() == 13;
            chain.finish(0)?;
            assert!(!poisoned, "a service that panics (this is a test)");
        }
        Ok(())
    });
    let mut driver = Driver::running(Box::new(device));
    let (told, heard) = channel();
    let listener = move |why: &str| told.send(why.to_owned()).unwrap();
    driver.transport.on_failure(listener);
    let buffer = driver.writable(13);
    driver.push(0, 0, &[buffer]);
    driver.kick(0);
    driver.wait_needs_reset();
    let failure = driver.transport.failure().unwrap();
    assert_eq!(failure, "the device's thread panicked");
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [failure]);
    driver.settle();
    assert_eq!(driver.rings[0].used_index(), 1, "done once");
    driver.init(u64::MAX);
    assert_eq!(driver.request(0, &[], &[8]).written, 0);
}

#[test]
fn an_error_asks_for_a_reset_and_the_service_comes_home() {
    let device = Probe::new(1, |call, context: &mut Context<'_>| match call {
        Call::Queue(_) if context.features & 1 << 29 != 0 => Err(io::Error::other("gone").into()),
        _ => echo(call, context),
    });
    let resets = Arc::clone(&device.resets);
    let mut driver = Driver::new(Box::new(device));
    driver.init(u64::MAX);
    driver.wait_needs_reset();
    assert!(driver.line.take());
    let failure = driver.transport.failure().unwrap();
    assert_eq!(failure, "the host failed the device: gone");
    driver.settle();
    assert!(driver.needs_reset(), "a pause is no reset");
    let before = resets.load(Ordering::Relaxed);
    // Without event indices this one works.
    driver.init(!(1 << 29));
    assert_eq!(resets.load(Ordering::Relaxed), before + 1);
    assert_eq!(driver.request(0, &[&[1]], &[]).written, 0);
}

#[test]
fn a_service_runs_once_at_a_time() {
    let parked = Parked::new(Turn(echo));
    let line = crate::virtio::IrqLine::Event(event());
    let env = || RunEnv {
        memory: hv_core::GuestRam::new(&[hv_core::RamRange {
            start: 0,
            size: 4096,
        }])
        .unwrap(),
        queues: vec![QueueSeat {
            state: QueueState::default(),
            doorbell: event(),
        }],
        features: 0,
        interrupt: Interrupt::new(line.clone()),
    };
    let worker = parked.start("probe", env()).unwrap();
    assert!(parked.with(|_| ()).is_none());
    assert!(matches!(
        parked.start("probe", env()),
        Err(StartError::Running)
    ));
    assert_eq!(worker.stop(), [QueueState::default()]);
    assert!(parked.with(|_| ()).is_some());
    // A worker that is dropped stops too.
    drop(parked.start("probe", env()).unwrap());
    assert!(parked.with(|_| ()).is_some());
}

#[cfg(target_os = "linux")]
#[test]
fn a_descriptor_is_reported_for_as_long_as_it_is_ready() {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;
    let (mut near, mut far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let (sender, calls) = channel();
    let device = Probe::new(1, move |call, context: &mut Context<'_>| {
        match call {
            Call::Started => context.sources.add_fd(3, far.as_fd(), Ready::READ)?,
            Call::Queue(_) => return Ok(()),
            Call::Source(..) => {}
        }
        let mut byte = [0];
        if let Call::Source(_, ready) = call {
            // One byte a call: more must wake again.
            let count = far.read(&mut byte)?;
            sender.send((call, count, byte[0])).unwrap();
            if ready.closed {
                context.sources.remove_fd(far.as_fd())?;
            } else if byte[0] == 2 {
                context.sources.modify_fd(4, far.as_fd(), Ready::BOTH)?;
            }
        }
        Ok(())
    });
    let driver = Driver::running(Box::new(device));
    near.write_all(&[1, 2, 3]).unwrap();
    let next = || calls.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(next(), (Call::Source(3, Ready::READ), 1, 1));
    assert_eq!(next(), (Call::Source(3, Ready::READ), 1, 2));
    assert_eq!(next(), (Call::Source(4, Ready::BOTH), 1, 3));
    drop(near);
    drop(driver);
}

/// A device that cannot be started when it is told so.
struct Refusing<F> {
    device: Probe<F>,
    refuses: Arc<AtomicBool>,
}

impl<F: Step> VirtioDevice for Refusing<F> {
    fn model(&self) -> Model {
        self.device.model()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.device.read_config(offset, data);
    }

    fn start(&mut self, env: RunEnv) -> Result<Box<dyn Worker>, StartError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(StartError::Host(io::Error::other("no thread left")));
        }
        self.device.start(env)
    }
}

#[test]
fn a_resume_that_fails_asks_for_a_reset() {
    let refuses = Arc::<AtomicBool>::default();
    let device = Refusing {
        device: Probe::new(1, echo),
        refuses: Arc::clone(&refuses),
    };
    let mut driver = Driver::running(Box::new(device));
    driver.transport.pause();
    refuses.store(true, Ordering::Relaxed);
    assert!(driver.transport.resume().is_err());
    assert!(driver.needs_reset());
    // Its driver can have it again.
    refuses.store(false, Ordering::Relaxed);
    driver.init(u64::MAX);
    assert_eq!(driver.request(0, &[&[1]], &[]).written, 0);
}
