//! A TCP proxy that makes a bad line of a good one: delay, stalls, and a cut after so many bytes.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How bad it is. Bytes are counted over all connections; *up* is towards the server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    /// What goes in comes out this much later, each way.
    pub delay: Duration,
    /// After so many bytes up the line is dead: nothing more goes through, and all connections end.
    pub cut_up: Option<u64>,
    /// The same, by the bytes that come back.
    pub cut_down: Option<u64>,
    /// After so many bytes up nothing goes through for so long, while the connections stand.
    pub stall_up: Option<(u64, Duration)>,
}

/// A running proxy; it ends with the test.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    line: Line,
    server: u16,
    up: AtomicU64,
    down: AtomicU64,
    dead: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// A line to a port of this host.
    pub fn to(server: u16, line: Line) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            line,
            server,
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            sockets: Mutex::default(),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if !accepting.dead.load(Ordering::SeqCst) {
                    accepting.connect(client);
                }
            }
        });
        Proxy { port, shared }
    }

    /// Bytes that went up, and bytes that came back.
    pub fn bytes(&self) -> (u64, u64) {
        (self.shared.up.load(Ordering::SeqCst), self.shared.down.load(Ordering::SeqCst))
    }

    /// Ends all connections that stand; new ones are taken.
    pub fn cut(&self) {
        self.shared.cut();
    }
}

impl Shared {
    fn cut(&self) {
        for socket in self.sockets.lock().expect("a lock").drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn connect(self: &Arc<Shared>, client: TcpStream) {
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server)) else { return };
        for socket in [&client, &server] {
            let _ = socket.set_nodelay(true);
            self.sockets.lock().expect("a lock").extend(socket.try_clone());
        }
        let ends = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
        self.pump(client, server, true);
        self.pump(ends.1, ends.0, false);
    }

    /// Carries one direction: one thread takes in, another gives out what is due.
    fn pump(self: &Arc<Shared>, mut from: TcpStream, mut to: TcpStream, up: bool) {
        let (sender, due) = mpsc::channel::<(Instant, Vec<u8>)>();
        let delay = self.line.delay;
        thread::spawn(move || {
            let mut chunk = vec![0; 16 * 1024];
            while let Ok(n) = from.read(&mut chunk) {
                if n == 0 || sender.send((Instant::now() + delay, chunk[..n].to_vec())).is_err() {
                    return;
                }
            }
        });
        let shared = self.clone();
        thread::spawn(move || {
            while let Ok((at, bytes)) = due.recv() {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                let allowed = shared.allow(up, bytes.len() as u64);
                let through = to.write_all(&bytes[..allowed]).is_ok();
                if shared.dead.load(Ordering::SeqCst) {
                    shared.cut();
                }
                if !through || allowed < bytes.len() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    }

    /// How many of the next bytes go through, after what stall there is.
    fn allow(&self, up: bool, count: u64) -> usize {
        if self.dead.load(Ordering::SeqCst) {
            return 0;
        }
        let (counter, limit) = if up { (&self.up, self.line.cut_up) } else { (&self.down, self.line.cut_down) };
        let before = counter.fetch_add(count, Ordering::SeqCst);
        if let Some((after, pause)) = self.line.stall_up.filter(|(after, _)| up && before <= *after && before + count > *after) {
            let _ = after;
            thread::sleep(pause);
        }
        match limit {
            Some(limit) if before + count >= limit => {
                self.dead.store(true, Ordering::SeqCst);
                limit.saturating_sub(before) as usize
            }
            _ => count as usize,
        }
    }
}
