//! Why the door turns a request away, before the engine hears of it. The engine's own errors have codes of their own.

/// A reason of the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The request is not what the contract says.
    RequestInvalid,
    /// No key, or none that is known.
    NotAuthenticated,
    /// The key may not do this.
    ScopeMissing,
    /// Another site's page makes the request.
    OriginRefused,
    /// The request was meant for another host.
    HostRefused,
    /// There is no such path.
    PathUnknown,
    /// The path knows other methods.
    MethodNotAllowed,
    /// The client took too long.
    RequestTimeout,
    /// The body is too long.
    BodyTooLarge,
    /// The body is of another kind.
    MediaTypeUnsupported,
    /// The principal asks too often.
    RateLimited,
    /// The service does as much at once as it may.
    TooManyRequests,
    /// The service takes no runs at the moment.
    NotReady,
    /// The service itself went wrong.
    Internal,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::RequestInvalid,
        Self::NotAuthenticated,
        Self::ScopeMissing,
        Self::OriginRefused,
        Self::HostRefused,
        Self::PathUnknown,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::MediaTypeUnsupported,
        Self::RateLimited,
        Self::TooManyRequests,
        Self::NotReady,
        Self::Internal,
    ];

    /// Stable code, with a page under `docs/errors/`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::RequestInvalid => "request_invalid",
            Self::NotAuthenticated => "not_authenticated",
            Self::ScopeMissing => "scope_missing",
            Self::OriginRefused => "origin_refused",
            Self::HostRefused => "host_refused",
            Self::PathUnknown => "path_unknown",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::MediaTypeUnsupported => "media_type_unsupported",
            Self::RateLimited => "rate_limited",
            Self::TooManyRequests => "too_many_requests",
            Self::NotReady => "not_ready",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status it is answered with.
    pub const fn status(self) -> u16 {
        match self {
            Self::RequestInvalid => 400,
            Self::NotAuthenticated => 401,
            Self::ScopeMissing | Self::OriginRefused => 403,
            Self::PathUnknown => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::MediaTypeUnsupported => 415,
            Self::HostRefused => 421,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::TooManyRequests | Self::NotReady => 503,
        }
    }

    /// Its meaning in a few words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::RequestInvalid => "The request is not what the contract says",
            Self::NotAuthenticated => "No key that is known here",
            Self::ScopeMissing => "The key may not do this",
            Self::OriginRefused => "Refused for pages of other sites",
            Self::HostRefused => "Meant for another host",
            Self::PathUnknown => "No such path",
            Self::MethodNotAllowed => "The path knows other methods",
            Self::RequestTimeout => "The request took too long to arrive",
            Self::BodyTooLarge => "The body is too long",
            Self::MediaTypeUnsupported => "The body is of another kind",
            Self::RateLimited => "Too many requests of one principal",
            Self::TooManyRequests => "Too many requests at once",
            Self::NotReady => "The service takes no runs at the moment",
            Self::Internal => "The service went wrong",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_once_with_a_code_of_its_own() {
        let mut codes: Vec<_> = Refusal::ALL.iter().map(|refusal| refusal.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Refusal::ALL.len());
        assert!(Refusal::ALL.iter().all(|refusal| (400..600).contains(&refusal.status())));
    }
}
