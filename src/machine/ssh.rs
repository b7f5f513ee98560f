//! SSH to one machine: the host key is pinned before the first connection, every call has a deadline, a dropped call is cut.
//!
//! libssh2 blocks, and locks a whole session around every call; so each call runs on a blocking thread with a session of its own,
//! taken from a small pool of connected ones. Cancelling is shutting the socket down: the blocked call then returns.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use ssh2::{MethodType, Session};

use super::Machine;
use crate::error::{Context, Error, Result};

/// How long one TCP connect may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the key exchange and login may take.
const LOGIN: Duration = Duration::from_secs(20);
/// Pause between looks at a port that is not open yet: short, since the first machine's SSH is on the critical path.
const POLL: Duration = Duration::from_millis(25);
/// OpenSSH from 9.8 on bans callers that fail to log in, for 5 s after the first failure (`PerSourcePenalties authfail:5`).
const AFTER_REFUSAL: Duration = Duration::from_secs(6);
/// How long a machine may take none of what it is sent, before that counts as a dead link. Commands read their input at once.
const STALL: Duration = Duration::from_secs(30);
/// A silent link is asked for a sign of life after this long, then every [`PROBE`]: a machine that vanished says nothing at all.
const SILENT: Duration = Duration::from_secs(5);
/// See [`SILENT`].
const PROBE: Duration = Duration::from_secs(3);
/// How long a link without any sign of life is kept: longer than a Wi-Fi's pause, much shorter than TCP's own quarter of an hour.
const DEAD: Duration = Duration::from_secs(25);
/// Bytes handed to libssh2 at a time.
const CHUNK: usize = 256 * 1024;

/// What a command on a machine gave.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command's exit status.
    pub status: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// The private key that kup logs in with, OpenSSH PEM. Not printable.
#[derive(Clone)]
pub struct LoginKey(Arc<str>);

impl LoginKey {
    /// From the file's text.
    pub fn new(pem: impl Into<Arc<str>>) -> LoginKey {
        LoginKey(pem.into())
    }
}

/// A machine that can be logged in to.
#[derive(Clone)]
pub struct Ssh {
    inner: Arc<Inner>,
}

struct Inner {
    machine: Machine,
    key: LoginKey,
    idle: Mutex<Vec<Connected>>,
}

/// A session and a second handle on its socket, by which a blocked call can be cut.
struct Connected {
    session: Session,
    socket: TcpStream,
}

/// Cuts the socket when the waiting future is dropped before the call ended.
struct Cut(Arc<Mutex<Option<TcpStream>>>);

impl Drop for Cut {
    fn drop(&mut self) {
        if let Some(socket) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A socket that is already closed needs no cutting.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Ssh {
    /// Waits until the machine's SSH answers and lets kup in, for at most `deadline`.
    ///
    /// # Errors
    /// A host key other than the pinned one, or a refused login, ends the wait at once and for good: nothing was sent.
    pub async fn connect(machine: &Machine, key: &LoginKey, deadline: Duration) -> Result<Ssh> {
        Ssh::connect_telling(machine, key, deadline, |_| {}).await
    }

    /// As [`Ssh::connect`]; `seen` hears why each try did not succeed.
    pub async fn connect_telling(machine: &Machine, key: &LoginKey, deadline: Duration, seen: impl Fn(&str)) -> Result<Ssh> {
        let ssh = Ssh { inner: Arc::new(Inner { machine: machine.clone(), key: key.clone(), idle: Mutex::default() }) };
        let until = Instant::now() + deadline;
        let mut last;
        loop {
            match ssh.blocking(|inner, cut| inner.open(cut)).await {
                Ok(connected) => {
                    ssh.inner.put_back(connected);
                    return Ok(ssh);
                }
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::LoginRefused(error)) => {
                    seen(&error.what);
                    // A machine that has just booted may not have its authorized keys yet, but knocking again soon gets us banned.
                    if Instant::now() + AFTER_REFUSAL > until {
                        return Err(error);
                    }
                    tokio::time::sleep(AFTER_REFUSAL).await;
                    last = error.to_string();
                }
                Err(Refusal::NotYet(why)) => {
                    seen(&why);
                    last = why;
                }
            }
            if Instant::now() >= until {
                let (Machine { name, ssh_port, .. }, address) = (machine, machine.route());
                let error = Error::new(format!("{name} did not answer on SSH within {} s", deadline.as_secs()))
                    .why(format!("last try of {address}:{ssh_port}: {last}"))
                    .hint("`kup logs` shows what the machine says; `kup up` tries again");
                return Err(match machine.cloud {
                    // The cloud's own rules may be in the way.
                    Some(_) => error.hint(format!(
                        "is your address, as the cloud sees it, in aws.access.ssh? `ssh -v {}@{address}` shows how far it comes",
                        machine.user
                    )),
                    None => error,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The machine this talks to.
    pub fn machine(&self) -> &Machine {
        &self.inner.machine
    }

    /// Runs a shell command with `input` on its standard input, for at most `deadline`. Any exit status is an `Ok`.
    pub async fn exec(&self, command: &str, input: impl Into<Vec<u8>>, deadline: Duration) -> Result<Output> {
        let (command, input) = (command.to_owned(), input.into());
        self.exec_reading(&command, move || Ok(Box::new(std::io::Cursor::new(input))), deadline).await
    }

    /// As [`Ssh::exec`], but a status other than 0 is an error that shows the command's last words.
    pub async fn run(&self, command: &str, input: impl Into<Vec<u8>>, deadline: Duration) -> Result<Output> {
        let output = self.exec(command, input, deadline).await?;
        if output.status == 0 {
            return Ok(output);
        }
        let words = if output.stderr.trim().is_empty() { output.text() } else { output.stderr.clone() };
        Err(Error::new(format!("a command failed on {} (exit status {})", self.machine().name, output.status))
            .why(last_lines(&words, 20)))
    }

    /// As [`Ssh::exec`], with the input opened and read on the blocking thread as it is sent: for streams that don't fit in memory.
    pub async fn exec_reading<F>(&self, command: &str, open: F, deadline: Duration) -> Result<Output>
    where
        F: FnOnce() -> Result<Box<dyn Read + Send>> + Send + 'static,
    {
        self.exec_between(command, open, Vec::new(), deadline).await.map(|(output, stdout)| Output { stdout, ..output })
    }

    /// As [`Ssh::exec`], with the output written to `sink` as it comes, on the blocking thread: for what doesn't fit in memory. The sink
    /// comes back if all of it went well so far; what it got is whole only if it says so itself, since a cut link ends it too.
    pub async fn exec_writing<W>(
        &self,
        command: &str,
        input: impl Into<Vec<u8>>,
        sink: W,
        deadline: Duration,
    ) -> Result<(Output, W)>
    where
        W: Write + Send + 'static,
    {
        let input = input.into();
        self.exec_between(command, move || Ok(Box::new(std::io::Cursor::new(input))), sink, deadline).await
    }

    async fn exec_between<F, W>(&self, command: &str, open: F, mut sink: W, deadline: Duration) -> Result<(Output, W)>
    where
        F: FnOnce() -> Result<Box<dyn Read + Send>> + Send + 'static,
        W: Write + Send + 'static,
    {
        let shown = first_words(command);
        let command = as_root(&self.machine().user, command);
        let name = self.machine().name.clone();
        let work = self.blocking(move |inner, cut| {
            let (connected, channel) = inner.channel(cut)?;
            let output = transact(&connected.session, channel, &command, open, &mut sink, deadline)?;
            inner.put_back(connected);
            Ok::<_, Error>((output, sink))
        });
        match tokio::time::timeout(deadline, work).await {
            Ok(outcome) => outcome.map_err(|e| e.within(format!("SSH to {name} failed"))),
            Err(_) => Err(Error::new(format!("a command on {name} did not end within {} s", deadline.as_secs()))
                .why(format!("it was `{shown}`"))),
        }
    }

    /// Runs `f` on a blocking thread; dropping the future cuts the socket that `f` watches.
    async fn blocking<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: Send + 'static + From<Error>,
        F: FnOnce(&Inner, &Watch) -> Result<T, E> + Send + 'static,
    {
        let watch = Watch(Arc::default());
        let cut = Cut(watch.0.clone());
        let inner = self.inner.clone();
        let outcome = tokio::task::spawn_blocking(move || {
            let outcome = f(&inner, &watch);
            // The call is over: nothing is left to cut.
            watch.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            outcome
        })
        .await;
        drop(cut);
        match outcome {
            Ok(outcome) => outcome,
            Err(e) => Err(Error::new("an SSH call ended unexpectedly").why(e).into()),
        }
    }
}

/// Where a blocking call leaves its socket, so that it can be cut.
struct Watch(Arc<Mutex<Option<TcpStream>>>);

impl Watch {
    fn watch(&self, socket: &TcpStream) -> Result<()> {
        let clone = socket.try_clone().context("cannot duplicate a socket")?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(clone);
        Ok(())
    }
}

/// Why a connection did not come about.
enum Refusal {
    /// It may work in a moment.
    NotYet(String),
    /// The login was refused.
    LoginRefused(Error),
    /// It never will.
    Final(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Final(error)
    }
}

impl Refusal {
    fn into_error(self) -> Error {
        match self {
            Refusal::NotYet(why) => Error::new("cannot connect").why(why),
            Refusal::LoginRefused(error) | Refusal::Final(error) => error,
        }
    }
}

impl Inner {
    fn take(&self) -> Option<Connected> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put_back(&self, connected: Connected) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connected);
    }

    /// A channel on an idle connection, or on a new one. Those that have died while they were idle are dropped: nothing has been asked
    /// of them yet, so nothing is done twice.
    fn channel(&self, cut: &Watch) -> Result<(Connected, ssh2::Channel)> {
        while let Some(connected) = self.take() {
            cut.watch(&connected.socket)?;
            connected.session.set_timeout(millis(LOGIN));
            if let Ok(channel) = connected.session.channel_session() {
                return Ok((connected, channel));
            }
        }
        let connected = self.open(cut).map_err(Refusal::into_error)?;
        let channel = connected.session.channel_session().context("cannot open a channel")?;
        Ok((connected, channel))
    }

    /// Connects, checks the host key, logs in.
    fn open(&self, watch: &Watch) -> Result<Connected, Refusal> {
        let Machine { name, ssh_port, user, host_key, .. } = &self.machine;
        let address = self.machine.route();
        let not_yet = |e: &dyn std::fmt::Display| Refusal::NotYet(e.to_string());
        let socket = TcpStream::connect_timeout(&SocketAddr::from((address, *ssh_port)), CONNECT).map_err(|e| not_yet(&e))?;
        socket.set_nodelay(true).map_err(|e| not_yet(&e))?;
        keep_alive(&socket).map_err(|e| not_yet(&e))?;
        watch.watch(&socket)?;
        if host_key.is_empty() {
            return Err(Refusal::Final(unknown_host_key(name)));
        }
        let (algorithm, blob) =
            pinned(host_key).ok_or_else(|| Error::new(format!("the pinned SSH host key of {name} is not readable")))?;
        let mut session = Session::new().context("cannot start an SSH session")?;
        session.set_timeout(millis(LOGIN));
        // Pinning the type too: a machine that offers another kind of key is another machine.
        session.method_pref(MethodType::HostKey, algorithm).context("the SSH library does not know the host key's type")?;
        // Hardware AES first: it is several times faster than the library's default order on any machine made since 2013.
        let ciphers = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr";
        session.method_pref(MethodType::CryptCs, ciphers).context("the SSH library knows none of the wanted ciphers")?;
        session.method_pref(MethodType::CryptSc, ciphers).context("the SSH library knows none of the wanted ciphers")?;
        session.set_tcp_stream(socket.try_clone().context("cannot duplicate a socket")?);
        session.handshake().map_err(|e| not_yet(&e))?;
        let offered = session.host_key().map(|(key, _)| key.to_vec()).unwrap_or_default();
        if offered != blob {
            return Err(Refusal::Final(
                Error::new(format!("{name} at {address} showed another SSH host key than the one kup gave it; nothing was sent"))
                    .why(format!("expected {}, got {}", fingerprint(&blob), fingerprint(&offered)))
                    .hint("if something else took that address, remove it"),
            ));
        }
        if let Err(e) = session.userauth_pubkey_memory(user, None, &self.key.0, None) {
            let refused = matches!(e.code(), ssh2::ErrorCode::Session(code) if code == libssh2_sys::LIBSSH2_ERROR_AUTHENTICATION_FAILED || code == libssh2_sys::LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED);
            if !refused {
                return Err(not_yet(&e));
            }
            return Err(Refusal::LoginRefused(
                Error::new(format!("{name} refused the login of {user}"))
                    .why(e)
                    .hint("`kup down` and `kup up` make the machines with this cluster's own key"),
            ));
        }
        Ok(Connected { session, socket })
    }
}

/// One command on an open session: sends the input, then reads both outputs to their ends.
fn transact<F>(
    session: &Session,
    mut channel: ssh2::Channel,
    command: &str,
    open: F,
    sink: &mut impl Write,
    deadline: Duration,
) -> Result<Output>
where
    F: FnOnce() -> Result<Box<dyn Read + Send>>,
{
    session.set_timeout(millis(deadline.min(STALL)));
    channel.exec(command).context("cannot start a command")?;
    let mut input = open()?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = input.read(&mut chunk).context("cannot read what is to be sent")?;
        if n == 0 {
            break;
        }
        match channel.write_all(chunk.get(..n).unwrap_or_default()) {
            Ok(()) => {}
            // The command ended without reading all of its input; its status says why.
            Err(e) if e.kind() == ErrorKind::BrokenPipe || channel.eof() => break,
            Err(e) if e.kind() == ErrorKind::TimedOut => {
                // Closing the channel and the session would each wait as long again.
                session.set_timeout(millis(POLL));
                return Err(
                    Error::new("the link stalled").why(format!("nothing went through for {} s", deadline.min(STALL).as_secs()))
                );
            }
            Err(e) => return Err(e).context("cannot send"),
        }
    }
    channel.send_eof().context("cannot end the input")?;
    session.set_timeout(millis(deadline));
    let stderr = read_both(&mut channel, sink)?;
    channel.wait_close().context("the command's channel did not close")?;
    let status = channel.exit_status().context("the command's exit status is not known")?;
    Ok(Output { status, stdout: Vec::new(), stderr: String::from_utf8_lossy(&stderr).into_owned() })
}

/// Both outputs to their ends, one after the other. That is safe because what kup's commands say on standard error is far below
/// the channel's window (2 MiB, `LIBSSH2_CHANNEL_WINDOW_DEFAULT`), which a command would have to fill to block.
fn read_both(channel: &mut ssh2::Channel, sink: &mut impl Write) -> Result<Vec<u8>> {
    let mut stderr = Vec::new();
    std::io::copy(channel, sink).context("cannot read a command's output, or keep it")?;
    channel.stderr().read_to_end(&mut stderr).context("cannot read a command's errors")?;
    Ok(stderr)
}

/// Has the kernel notice a peer that is gone without a word. A proxy that answers for a peer is beyond this: deadlines are for that.
fn keep_alive(socket: &TcpStream) -> rustix::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, SILENT)?;
    sockopt::set_tcp_keepintvl(socket, PROBE)?;
    // With this set, the kernel counts time instead of probes.
    sockopt::set_tcp_user_timeout(socket, millis(DEAD))
}

/// The beginning of a command, for messages. Nothing secret is in it: input goes by standard input.
fn first_words(command: &str) -> String {
    let mut words: String = command.lines().next().unwrap_or_default().chars().take(80).collect();
    if words.len() < command.len() {
        words.push('…');
    }
    words
}

/// The last `count` lines of a text.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}

/// Why nobody logs in to a machine whose host key is not known.
pub fn unknown_host_key(machine: &str) -> Error {
    Error::new(format!("the SSH host key of {machine} is not known, so that nothing is sent to it"))
        .why("a minion on AWS says it in its Node, which is not there yet, or the API does not answer")
}

/// A command as root runs it, whoever logs in: images of clouds let nobody in as root.
fn as_root(user: &str, command: &str) -> String {
    if user == "root" { command.to_owned() } else { format!("sudo -n -- sh -c {}", quoted(command)) }
}

/// A word as a POSIX shell reads it back unchanged.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn millis(d: Duration) -> u32 {
    u32::try_from(d.as_millis()).unwrap_or(u32::MAX)
}

/// The host key in a text from outside (a tag, what a Node says of itself), without anything beside it: `known_hosts` has a line for each, and
/// a second line would be another machine's key. None if there is none that kup can hold a machine to.
pub fn host_key(text: &str) -> Option<String> {
    let (algorithm, blob) = pinned(text)?;
    Some(format!("{algorithm} {}", base64::engine::general_purpose::STANDARD.encode(blob)))
}

/// The algorithm and the raw key of a one-line public key.
fn pinned(line: &str) -> Option<(&'static str, Vec<u8>)> {
    let mut words = line.split_whitespace();
    let algorithm = match words.next()? {
        "ssh-ed25519" => "ssh-ed25519",
        "ecdsa-sha2-nistp256" => "ecdsa-sha2-nistp256",
        _ => return None,
    };
    Some((algorithm, base64::engine::general_purpose::STANDARD.decode(words.next()?).ok()?))
}

fn fingerprint(blob: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    format!("SHA256:{}", base64::engine::general_purpose::STANDARD_NO_PAD.encode(Sha256::digest(blob)))
}
