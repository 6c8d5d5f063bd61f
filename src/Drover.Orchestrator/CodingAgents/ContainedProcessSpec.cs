
namespace Drover.Orchestrator.CodingAgents;

/// <summary>How long a contained process may take; null means no limit.</summary>
/// <param name="Start">From its start to its first output. Off by default: many programs print only at the end.</param>
/// <param name="Silence">Between two outputs. Default 15 minutes.</param>
/// <param name="Total">From start to end. Default 60 minutes.</param>
internal sealed record ProcessClocks(TimeSpan? Start, TimeSpan? Silence, TimeSpan? Total)
{
    /// <summary>No start clock, 15 minutes of silence, 60 minutes in all.</summary>
    public static ProcessClocks Default { get; } = new(null, TimeSpan.FromMinutes(15), TimeSpan.FromMinutes(60));
}

/// <summary>One run of one program under a keeper.</summary>
internal sealed record ContainedProcessSpec
{
    /// <summary>Program and arguments. A program without a slash is looked up in the PATH of <see cref="Environment"/>; with one, relative to <see cref="WorkingDirectory"/>.</summary>
    public required IReadOnlyList<string> Argv { get; init; }

    /// <summary>Where it runs, absolute.</summary>
    public required string WorkingDirectory { get; init; }

    /// <summary>Its whole environment; nothing is inherited. The run token is added.</summary>
    public required IReadOnlyDictionary<string, string> Environment { get; init; }

    /// <summary>Found in everything the run starts, and by a later sweep. Unique among runs that may be alive at one time.</summary>
    public required string RunToken { get; init; }

    /// <summary>Where its output is kept, redacted, 0600; its folder exists.</summary>
    public required string LogPath { get; init; }

    /// <summary>The file on its standard input; null is /dev/null.</summary>
    public string? StdinFile { get; init; }

    /// <summary>Most bytes in the log: the first half, and the end. Default 64 MiB.</summary>
    public long OutputCap { get; init; } = 64L << 20;

    /// <summary>Longest line handed on, in bytes. Default 64 KiB.</summary>
    public int LineCap { get; init; } = 64 << 10;

    /// <summary>Between SIGTERM and SIGKILL. Default 5 s.</summary>
    public TimeSpan StopGrace { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Limits of time.</summary>
    public ProcessClocks Clocks { get; init; } = ProcessClocks.Default;

    /// <summary>Values that must not reach the log or the caller.</summary>
    public IReadOnlyList<string> Secrets { get; init; } = [];

    /// <summary>How to start the keeper.</summary>
    public KeeperCommand Keeper { get; init; } = KeeperCommand.Default;
}

/// <summary>One line of output, secrets redacted, otherwise as written: sanitize it before it is shown.</summary>
/// <param name="IsError">From standard error.</param>
/// <param name="Text">Without its line end.</param>
/// <param name="Cut">Longer than the line cap; this is its beginning.</param>
internal readonly record struct OutputLine(bool IsError, string Text, bool Cut);

/// <summary>What the caller hears during a run. A callback that throws ends the run, which then throws the same. <see cref="OnLine"/> may come while <see cref="OnStarted"/> still runs.</summary>
internal record ProcessHooks
{
    /// <summary>Awaited when the keeper is up and before the program exists: record the keeper's identity and the token here (intent first).</summary>
    public Func<ProcessIdentity, Task>? OnReady { get; init; }

    /// <summary>Awaited when the program has been started: keeper and program.</summary>
    public Func<ProcessIdentity, ProcessIdentity, Task>? OnStarted { get; init; }

    /// <summary>Each line, on the thread that reads; a slow callback slows the program.</summary>
    public Action<OutputLine>? OnLine { get; init; }

    /// <summary>Ends the tree with SIGKILL at once. The call's own token asks with SIGTERM first.</summary>
    public CancellationToken Kill { get; init; }
}

/// <summary>Why a run is over.</summary>
internal enum ProcessEnd
{
    /// <summary>The program ended by itself: exit code or signal.</summary>
    Exited,
    /// <summary>It was never started; <see cref="ProcessOutcome.Problem"/> says why.</summary>
    NotStarted,
    /// <summary>No first output in time.</summary>
    StartClock,
    /// <summary>No further output in time.</summary>
    SilenceClock,
    /// <summary>Not finished in time.</summary>
    TotalClock,
    /// <summary>The caller stopped or killed it.</summary>
    Stopped,
    /// <summary>The keeper was lost. What the program did is unknown; its tree was swept.</summary>
    KeeperLost,
}

/// <summary>How a run went.</summary>
/// <param name="End">Why it is over.</param>
internal sealed record ProcessOutcome(ProcessEnd End)
{
    /// <summary>The program's exit code, when it exited; also set when it answered a stop by exiting.</summary>
    public int? ExitCode { get; init; }

    /// <summary>The signal that ended it, when one did.</summary>
    public int? Signal { get; init; }

    /// <summary>Bytes it wrote.</summary>
    public long OutputBytes { get; init; }

    /// <summary>Bytes of those that the log's cap left out.</summary>
    public long LeftOutBytes { get; init; }

    /// <summary>The last lines of both streams, at most 64 Ki characters.</summary>
    public string Tail { get; init; } = "";

    /// <summary>Processes of its tree that had to be ended after it (daemons, background jobs).</summary>
    public int LeftoversEnded { get; init; }

    /// <summary>Processes that could not be ended: an error to report.</summary>
    public IReadOnlyList<ProcessIdentity> Survivors { get; init; } = [];

    /// <summary>What went wrong besides, one line; null when nothing did.</summary>
    public string? Problem { get; init; }

    /// <summary>From start of the program to the end of its tree.</summary>
    public TimeSpan Duration { get; init; }

    /// <summary>From the request until the keeper was ready.</summary>
    public TimeSpan KeeperStart { get; init; }
}
