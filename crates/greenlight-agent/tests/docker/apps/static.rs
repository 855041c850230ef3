//! A web service of one static file, for an image that has nothing else in it.
//!
//! | Variable | Meaning |
//! |---|---|
//! | `EXIT` | it ends at once with this status |
//! | `SECRET_TOKEN` | its length is answered at `/token`, never the value |
//!
//! `/start` answers when the process began. With the argument `migrate` it says so, and ends with
//! the status in `MIGRATION_STATUS`; with `check` it looks for `/data/healthy`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;
use std::time::SystemTime;

/// When this process began.
static STARTED: OnceLock<SystemTime> = OnceLock::new();

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn _exit(status: i32) -> !;
}

extern "C" fn terminated(_: i32) {
    // Nothing is allowed here but to leave.
    unsafe { _exit(0) }
}

fn main() {
    STARTED.get_or_init(SystemTime::now);
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    match std::env::args().nth(1).as_deref() {
        Some("migrate") => {
            println!("migrating for {}", variable("VERSION"));
            std::process::exit(variable("MIGRATION_STATUS").parse().unwrap_or(0));
        }
        Some("check") => {
            // As a HEALTHCHECK: well once the file is there.
            std::process::exit(i32::from(!std::path::Path::new("/data/healthy").exists()));
        }
        _ => {}
    }
    if let Ok(status) = variable("EXIT").parse() {
        eprintln!("ending at once, as told");
        std::process::exit(status);
    }
    unsafe { signal(15, terminated) };
    let port: u16 = variable("PORT").parse().expect("PORT is a port");
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
    println!("{} listens on {port}", variable("VERSION"));
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve_connection(stream));
    }
}

fn serve_connection(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
    let mut writer = stream;
    let version = std::env::var("VERSION").unwrap_or_default();
    let token = std::env::var("SECRET_TOKEN").unwrap_or_default().len();
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let mut close = false;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            close |= line.to_ascii_lowercase().starts_with("connection: close");
            if line == "\r\n" {
                break;
            }
        }
        let body = match first.split(' ').nth(1) {
            Some("/token") => token.to_string(),
            Some("/start") => format!("{:?}", STARTED.get()),
            _ => "x".repeat(1024),
        };
        let connection = if close { "connection: close\r\n" } else { "" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nx-release: {version}\r\ncontent-length: {}\r\n{connection}\r\n{body}",
            body.len()
        );
        if writer.write_all(answer.as_bytes()).is_err() || close {
            return;
        }
    }
}
