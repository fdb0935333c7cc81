//! What asking 64 engines once a second costs: the daemon, and beside it Prometheus and VictoriaMetrics with the same pages.
//!
//! `bench-engines PLUMBLINE PAGE SCRATCH [NAME=PROGRAM]…`; to be built optimised, run as root. The engines are one server of this
//! program's that gives everybody the same page. Programs take turns; each turn is the CPU time of the process (user and system) over
//! a span, by `/proc/PID/stat`, and the pages that the server gave meanwhile. They do not do the same with a page: ours keeps what the
//! vocabulary has, an hour of it in memory; theirs keep every sample on disk.
//!
//! `bare` is this program with `bare PORT`: it asks as often, reads each page to its end and does nothing with it, which is what
//! asking costs on this machine at the least.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const ENGINES: u32 = 64;
const TURNS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(6);
const SPAN: Duration = Duration::from_secs(15);
/// `USER_HZ`, the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    if let [Some(mode), Some(port)] = [env::args().nth(1), env::args().nth(2)]
        && mode == "bare"
    {
        return Ok(ask_for_ever(port.parse()?)?);
    }
    let usage = "usage: bench-engines PLUMBLINE PAGE SCRATCH [NAME=PROGRAM]…";
    let (Some(plumbline), Some(page), Some(scratch)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err(usage.into());
    };
    let page: Arc<[u8]> = fs::read(page)?.into();
    let served = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (given, counted) = (Arc::clone(&page), Arc::clone(&served));
    thread::spawn(move || serve(&listener, &given, &counted));

    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    let mut contenders = vec![("plumbline".to_owned(), plumbline_command(&plumbline, &scratch, port)?)];
    let mut bare = Command::new(env::current_exe()?);
    bare.args(["bare".to_owned(), port.to_string()]);
    contenders.push(("bare".to_owned(), bare));
    for argument in arguments {
        let text = argument.to_string_lossy().into_owned();
        let (name, program) = text.split_once('=').ok_or(usage)?;
        contenders.push((name.to_owned(), peer_command(name, Path::new(program), &scratch, port)?));
    }
    println!(
        "{ENGINES} engines, a page of {} bytes each, once a second; {TURNS} turns of {SPAN:?}, one after the other",
        page.len()
    );
    println!("{:<16} {:>10} {:>14} {:>20}", "", "scrapes/s", "% of a core", "CPU s/1000 scrapes");
    let mut found: Vec<Vec<[f64; 3]>> = vec![Vec::new(); contenders.len()];
    for _ in 0..TURNS {
        for ((name, command), found) in contenders.iter_mut().zip(&mut found) {
            let numbers = turn(command, &served)?;
            println!("{name:<16} {:>10.1} {:>14.3} {:>20.4}", numbers[0], numbers[1], numbers[2]);
            found.push(numbers);
        }
    }
    for ((name, _), found) in contenders.iter().zip(&found) {
        let mut of: Vec<f64> = found.iter().map(|numbers| numbers[2]).collect();
        of.sort_by(f64::total_cmp);
        println!("{name}: {:.4} CPU s per 1000 scrapes ({:.4} to {:.4})", of[TURNS / 2], of[0], of[TURNS - 1]);
    }
    Ok(())
}

fn turn(command: &mut Command, served: &AtomicU64) -> Result<[f64; 3], Box<dyn std::error::Error>> {
    let mut child = Guard(command.spawn()?);
    thread::sleep(WARM_UP);
    let (before, pages, began) = (cpu_seconds(child.0.id())?, served.load(Ordering::Relaxed), Instant::now());
    thread::sleep(SPAN);
    let seconds = began.elapsed().as_secs_f64();
    let (cpu, scrapes) = (cpu_seconds(child.0.id())? - before, (served.load(Ordering::Relaxed) - pages) as f64);
    child.end();
    if scrapes < 1.0 {
        return Err(format!("{command:?} asked for no page").into());
    }
    Ok([scrapes / seconds, cpu / seconds * 100.0, cpu / scrapes * 1000.0])
}

fn plumbline_command(program: &Path, scratch: &Path, port: u16) -> std::io::Result<Command> {
    fs::create_dir_all(scratch.join("policies"))?;
    // One that watches nothing that happens here.
    let policy = "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {name: none}\nspec:\n  rules:\n    - name: none\n      severity: low\n      effect: alert\n      message: \"{comm}\"\n      match: {file: {watch: [/nonexistent/models], access: [open]}}\n";
    fs::write(scratch.join("policies/none.yaml"), policy)?;
    let mut config = format!(
        "state_dir: {0}/state\npolicies: {0}/policies\nlisten: null\ngpu: {{enabled: false}}\nengines:\n  discover: false\n  targets:\n",
        scratch.display()
    );
    for engine in 0..ENGINES {
        config +=
            &format!("  - {{name: e{engine}, url: 'http://127.0.0.1:{port}/metrics?e={engine}', interval: 1s}}\n");
    }
    let file = scratch.join("plumbline.yaml");
    fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.args(["run", "--config"]).arg(file).env("RUST_LOG", "error");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(scratch.join("plumbline.log"))?);
    Ok(command)
}

fn peer_command(name: &str, program: &Path, scratch: &Path, port: u16) -> std::io::Result<Command> {
    let mut config = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n".to_owned();
    for engine in 0..ENGINES {
        config += &format!(
            "- {{job_name: e{engine}, params: {{e: ['{engine}']}}, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n"
        );
    }
    let file = scratch.join(format!("{name}.yml"));
    fs::write(&file, config)?;
    let data = scratch.join(format!("{name}-data"));
    let mut command = Command::new(program);
    if name == "prometheus" {
        command.arg(format!("--config.file={}", file.display())).arg(format!("--storage.tsdb.path={}", data.display()));
        command.arg("--web.listen-address=127.0.0.1:0");
    } else {
        command
            .arg(format!("-promscrape.config={}", file.display()))
            .arg(format!("-storageDataPath={}", data.display()));
        command.arg("-httpListenAddr=127.0.0.1:18428");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(scratch.join(format!("{name}.log")))?);
    Ok(command)
}

/// A connection for each page, as the daemon has it.
fn ask_for_ever(port: u16) -> std::io::Result<()> {
    let mut page = vec![0; 1 << 17];
    let began = Instant::now();
    for asked in 1_u32.. {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        while stream.read(&mut page)? > 0 {}
        let next = began + Duration::from_secs(1) / ENGINES * asked;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

struct Guard(Child);

impl Guard {
    fn end(&mut self) {
        // By its id, and gently first: a daemon that is killed leaves kernel programs to the kernel.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        for _ in 0..100 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// Fields 14 and 15 of proc_pid_stat(5).
fn cpu_seconds(pid: u32) -> std::io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 =
        after.split_ascii_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}

fn serve(listener: &TcpListener, page: &Arc<[u8]>, served: &Arc<AtomicU64>) {
    for stream in listener.incoming().flatten() {
        let (page, served) = (Arc::clone(page), Arc::clone(served));
        thread::spawn(move || drop(answer(stream, &page, &served)));
    }
}

/// As many requests as the client has on one connection.
fn answer(mut stream: TcpStream, page: &[u8], served: &AtomicU64) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=1.0.0; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
        page.len()
    );
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                read => request.extend_from_slice(&buffer[..read]),
            }
        }
        let is_last = request.to_ascii_lowercase().windows(17).any(|bytes| bytes == b"connection: close");
        request.clear();
        stream.write_all(&[head.as_bytes(), page].concat())?;
        served.fetch_add(1, Ordering::Relaxed);
        if is_last {
            return Ok(());
        }
    }
}
