//! Why a call did not end well, as stable codes. What the sandbox and the network say no with keeps their own codes.

/// Why a call did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The arguments do not fit the tool's schema.
    ArgumentsInvalid,
    /// There is no such tool.
    ToolUnknown,
    /// A precondition of the call is not met.
    PreconditionFailed,
    /// The tool is another agent, which is not called here.
    ToolNested,
    /// The permission ran out before the call began.
    PermitExpired,
    /// The call was killed at its contract's limit.
    ToolTimeout,
    /// A value that the declaration names is not set, or makes no request.
    ToolNotConfigured,
    /// There is no such stored output.
    OutputUnknown,
    /// The stored output ends before the offset.
    OutputOffset,
    /// There is no such session of a command.
    TerminalUnknown,
    /// The session's command takes no input.
    TerminalNoStdin,
    /// The session's command does not read its input.
    TerminalStuck,
    /// There is no such file.
    ImageMissing,
    /// The image is larger than can be shown.
    ImageTooLarge,
    /// The file is no image of a supported kind.
    ImageUnknown,
    /// The text is no patch.
    PatchMalformed,
    /// The patch does not fit the files.
    PatchConflict,
    /// The database can't be opened.
    SqlDatabase,
    /// A value can't be bound.
    SqlParameter,
    /// The statement does what it may not.
    SqlRefused,
    /// SQLite could not perform the statement.
    SqlFailed,
    /// Another process held the database.
    SqlBusy,
    /// A constraint of the database forbids the change.
    SqlConstraint,
    /// There is no jail for programs of the project.
    HelperMissing,
    /// The program can't be found.
    CommandProgram,
    /// The program did not end with exit code 0.
    CommandFailed,
    /// The service did not answer with success.
    HttpStatus,
    /// The function answered with an error.
    FunctionFailed,
    /// The function broke down.
    FunctionPanicked,
}

impl Reason {
    /// The stable code, with a page under `docs/errors/`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::ArgumentsInvalid => "arguments_invalid",
            Self::ToolUnknown => "tool_unknown",
            Self::PreconditionFailed => "precondition_failed",
            Self::ToolNested => "tool_nested",
            Self::PermitExpired => "permit_expired",
            Self::ToolTimeout => "tool_timeout",
            Self::ToolNotConfigured => "tool_not_configured",
            Self::OutputUnknown => "output_unknown",
            Self::OutputOffset => "output_offset",
            Self::TerminalUnknown => "terminal_unknown",
            Self::TerminalNoStdin => "terminal_no_stdin",
            Self::TerminalStuck => "terminal_stuck",
            Self::ImageMissing => "image_missing",
            Self::ImageTooLarge => "image_too_large",
            Self::ImageUnknown => "image_unknown",
            Self::PatchMalformed => "patch_malformed",
            Self::PatchConflict => "patch_conflict",
            Self::SqlDatabase => "sql_database",
            Self::SqlParameter => "sql_parameter",
            Self::SqlRefused => "sql_refused",
            Self::SqlFailed => "sql_failed",
            Self::SqlBusy => "sql_busy",
            Self::SqlConstraint => "sql_constraint",
            Self::HelperMissing => "helper_missing",
            Self::CommandProgram => "command_program",
            Self::CommandFailed => "command_failed",
            Self::HttpStatus => "http_status",
            Self::FunctionFailed => "function_failed",
            Self::FunctionPanicked => "function_panicked",
        }
    }
}
