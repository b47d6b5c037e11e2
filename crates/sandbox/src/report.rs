//! What a start took, stage by stage, so that one that is slow or fails names where.

/// What stood before it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing that had its root.
    Cold,
    /// One that was nobody's, with its root.
    Warm,
    /// It lived: an earlier harness had left it.
    TakenOver,
}

/// Microseconds of each stage. What a provider does not tell apart is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What stood before; `None` where that is not told.
    pub way: Option<Way>,
    /// From the request until its first process knows what to become: groups, limits, the workspace's mount.
    pub claim_us: u64,
    /// Until its root stands. Next to nothing when that stood ready.
    pub root_us: u64,
    /// Until the workspace is in it.
    pub workspace_us: u64,
    /// Until the last wall stands and commands are taken.
    pub ready_us: u64,
    /// The whole of it as the harness saw it, from its request on.
    pub whole_us: u64,
}

impl Report {
    /// Of a start of which nothing is known.
    pub const fn none() -> Self {
        Self { way: None, claim_us: 0, root_us: 0, workspace_us: 0, ready_us: 0, whole_us: 0 }
    }
}
