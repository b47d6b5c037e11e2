//! The files of sessions.

use crate::transport::{Answer, Body};
use crate::wishes::Once;
use crate::{Client, Error};
use api::{RestoreWorkspace, RestoredWorkspace, WORKSPACE_MEDIA, WorkspaceDiff};
use bytes::Bytes;
use domain::{Id, id};
use http::{HeaderMap, HeaderValue, Method, header};

/// Bytes of an archive that is sent at most: it is held in memory.
const ARCHIVE_BYTES_MAX: usize = 1 << 30;
/// How long the service may take before it answers: files are unpacked, stored and compared meanwhile.
const WORK_MS_MAX: u64 = 600_000;

/// A workspace on its way in.
#[derive(Debug)]
pub struct Archive(Body);

impl Archive {
    /// The next piece; `None`: it is whole.
    ///
    /// # Errors
    /// When it breaks off: what came before is no archive.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.0.chunk().await
    }
}

impl Client {
    /// The files of a session, as they were kept last or at another checkpoint: a tar.
    pub async fn workspace(&self, session: &str, checkpoint: Option<Id<id::Checkpoint>>) -> Result<Archive, Error> {
        let checkpoint = checkpoint.map(|checkpoint| checkpoint.to_string());
        let path = crate::client::path_with(&path(session, ""), &[("checkpoint", checkpoint.as_deref())]);
        let mut request = self.request(Method::GET, path, HeaderMap::new());
        request.endless = true;
        let Answer { body, .. } = self.answer(request).await?;
        Ok(Archive(body))
    }

    /// How the files of a session differ between two of its checkpoints.
    pub async fn workspace_diff(
        &self,
        session: &str,
        from: Option<Id<id::Checkpoint>>,
        to: Option<Id<id::Checkpoint>>,
        patch: Option<&str>,
    ) -> Result<WorkspaceDiff, Error> {
        let [from, to] = [from, to].map(|end| end.map(|end| end.to_string()));
        let query = [("from", from.as_deref()), ("to", to.as_deref()), ("patch", patch)];
        let path = crate::client::path_with(&path(session, "/diff"), &query);
        let mut request = self.request(Method::GET, path, HeaderMap::new());
        (request.first_byte_ms, request.idle_ms) = (WORK_MS_MAX, WORK_MS_MAX);
        self.read(request).await
    }

    /// Puts a checkpoint in the place of a session's files.
    pub async fn restore_workspace(
        &self,
        session: &str,
        checkpoint_id: Id<id::Checkpoint>,
    ) -> Result<RestoredWorkspace, Error> {
        self.post(&path(session, "/restore"), Some(&RestoreWorkspace { checkpoint_id }), Once::default()).await
    }

    /// Puts an archive in the place of a session's files.
    pub async fn put_workspace(&self, session: &str, archive: Bytes) -> Result<RestoredWorkspace, Error> {
        if archive.len() > ARCHIVE_BYTES_MAX {
            return Err(Error::TooLarge { what: "the archive", bytes_max: ARCHIVE_BYTES_MAX });
        }
        let media = (header::CONTENT_TYPE, HeaderValue::from_static(WORKSPACE_MEDIA));
        let mut request = self.request(Method::POST, path(session, ""), HeaderMap::from_iter([media]));
        request.body = archive;
        (request.first_byte_ms, request.idle_ms) = (WORK_MS_MAX, WORK_MS_MAX);
        self.read(request).await
    }
}

fn path(session: &str, below: &str) -> String {
    format!("{}/workspace{below}", api::session_path(session))
}
