using Drover.Workflows;

namespace Drover.Cli;

/// <summary>The exit codes of every command, and the one place that maps errors to them.</summary>
internal static class ExitCodes
{
    public const int Done = 0;
    public const int FailedWork = 1;
    public const int BadInput = 2;
    public const int NotFound = 3;
    public const int Conflict = 4;
    public const int Database = 5;
    public const int TimedOut = 6;
    public const int Stalled = 7;
    public const int Interrupted = 130;

    /// <summary>What each code means, for the help text and the reference page.</summary>
    public static IReadOnlyList<(int Code, string Meaning)> All { get; } =
    [
        (Done, "done"),
        (FailedWork, "failed work"),
        (BadInput, "usage or bad input; nothing was changed"),
        (NotFound, "not found"),
        (Conflict, "ambiguous, or in conflict with the present state"),
        (Database, "the database cannot be used, or is newer than this program"),
        (TimedOut, "a wait ended before what it waited for"),
        (Stalled, "the run is stalled: a person must decide something"),
        (Interrupted, "interrupted; `drover resume` continues"),
    ];

    public static int Of(ErrorCode code) => code switch
    {
        ErrorCode.InvalidInput => BadInput,
        ErrorCode.NotFound => NotFound,
        ErrorCode.Conflict or ErrorCode.Deduplicated => Conflict,
        ErrorCode.Database => Database,
        ErrorCode.Timeout => TimedOut,
        _ => FailedWork,
    };
}
