//! Somebody who knocks at a launcher's door: says some bytes and tells what comes back.

use crate::user::become_user;
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) const MODE: &str = "--stranger";

/// Says `words` at the home of `data`, one message each, as `user`; gives what came back to the last, or why nothing did.
pub(crate) fn say(data: &Path, user: Option<u32>, words: &[&str]) -> String {
    let user = user.map_or_else(|| "-".to_owned(), |user| user.to_string());
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([MODE, &data.display().to_string(), &user])
        .args(words)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Is that somebody.
pub(crate) fn knock(arguments: &[String]) -> ExitCode {
    let [data, user, words @ ..] = arguments else { return ExitCode::FAILURE };
    if let Ok(user) = user.parse() {
        become_user(user);
    }
    let told = speak(&Path::new(data).join("launcher/socket"), words);
    println!("{}", told.unwrap_or_else(|errno| format!("! {}", errno.raw_os_error())));
    ExitCode::SUCCESS
}

fn speak(path: &Path, words: &[String]) -> rustix::io::Result<String> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(20)))?;
    let mut told = String::new();
    for word in words {
        let bytes = match word.strip_prefix("x*") {
            Some(count) => vec![b'x'; count.parse().unwrap()],
            None => word.as_bytes().to_vec(),
        };
        rustix::net::send(&socket, &bytes, SendFlags::NOSIGNAL)?;
        let mut answer = vec![0; 4_096];
        let (length, _) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
        told = if length == 0 { "closed".to_owned() } else { String::from_utf8_lossy(&answer[..length]).into_owned() };
    }
    Ok(told)
}
