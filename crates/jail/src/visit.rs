//! A look into the launcher of a data directory that no harness has at the moment: what lives there, and ending it. Who visits
//! takes nothing over; when the visit is over, the launcher waits for its harness again, for a grace that begins anew.

use crate::door::{self, Answer, Ask, Reply, Request};
use crate::home::{self, Found};
use crate::launcher::timespec;
use crate::{Error, provider};
use domain::{Id, id};
use rustix::net::SendFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use sandbox::Living;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the launcher may take to answer: a sandbox that saves files when it ends gets 30 s for it.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(45);
/// How often a home is looked at again whose launcher is starting or ending.
const LOOKS_MAX: u32 = 500;
const PAUSE_MS: u64 = 10;
/// Pages that are asked for at most.
const PAGES_MAX: usize = 1_024;

/// Somebody who looks in. Every call waits, so none is for an async thread.
#[derive(Debug)]
pub struct Visit {
    socket: OwnedFd,
    home: PathBuf,
    /// Of the last request.
    number: u64,
}

impl Visit {
    /// Comes to the launcher that lives in `data`; `None` when none does.
    ///
    /// # Errors
    /// [`Error::Home`] when a harness has it, which is to be asked instead, or its home can't be used.
    pub fn at(data: &Path) -> Result<Option<Self>, Error> {
        let path = data.join("launcher");
        if !path.is_dir() {
            return Ok(None);
        }
        let broken = |detail: String| Error::Home { directory: path.display().to_string(), detail };
        let directory = home::open(&path).map_err(|errno| broken(errno.to_string()))?;
        for _ in 0..LOOKS_MAX {
            match home::look(&directory).map_err(|errno| broken(errno.to_string()))? {
                Found::Living(socket) => {
                    let bounded = set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WAIT_MAX));
                    bounded.map_err(|errno| broken(errno.to_string()))?;
                    return Ok(Some(Self { socket, home: path, number: 0 }));
                }
                Found::Free(_) => return Ok(None),
                Found::Owned => return Err(broken("another process has its launcher; hint: ask that one".to_owned())),
                // Nothing tells when it has come or gone.
                Found::Unclear => {
                    let _ = rustix::event::poll(&mut [], Some(&timespec(PAUSE_MS)));
                }
            }
        }
        Err(broken("its launcher is starting or ending; hint: try again".to_owned()))
    }

    /// What lives there.
    ///
    /// # Errors
    /// [`Error::Home`] when the launcher does not answer.
    pub fn living(&mut self) -> Result<Vec<Living>, Error> {
        Ok(self.list()?.into_iter().filter_map(provider::left_over).collect())
    }

    /// Ends a sandbox and waits until nothing of it is left but its workspace; `false`: no such one lives.
    ///
    /// # Errors
    /// [`Error::Home`] when the launcher does not answer.
    pub fn end(&mut self, id: Id<id::Sandbox>) -> Result<bool, Error> {
        let found = self.list()?.into_iter().find(|one| one.label.id.parse().ok() == Some(id));
        let Some(one) = found else { return Ok(false) };
        self.ask(Request::Close { slot: one.slot, grace_ms: provider::SAVE_GRACE_MS }).map(|_| true)
    }

    fn list(&mut self) -> Result<Vec<door::Lives>, Error> {
        let (mut lives, mut after) = (Vec::new(), 0);
        for _ in 0..PAGES_MAX {
            let Reply::Listed { sandboxes: page } = self.ask(Request::List { after })? else {
                return Err(self.broken("it answered something else"));
            };
            let Some(last) = page.last() else { break };
            after = last.slot;
            lives.extend(page);
        }
        Ok(lives)
    }

    fn ask(&mut self, request: Request) -> Result<Reply, Error> {
        self.number += 1;
        let ask = Ask { number: self.number, request };
        door::send(&self.socket, &ask, &[], SendFlags::empty()).map_err(|errno| self.broken(&errno.to_string()))?;
        loop {
            match door::receive::<Answer>(&self.socket) {
                Ok(Some((answer, _))) if answer.number == self.number => return Ok(answer.reply),
                Ok(Some(_)) => {}
                Ok(None) => return Err(self.broken("the launcher ended")),
                Err(errno) => return Err(self.broken(&errno.to_string())),
            }
        }
    }

    fn broken(&self, detail: &str) -> Error {
        Error::Home { directory: self.home.display().to_string(), detail: detail.to_owned() }
    }
}
