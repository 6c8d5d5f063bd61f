namespace Drover.Orchestrator.CodingAgents;

/// <summary>
/// A kind of coding agent. The seam between the orchestrator and the programs that do the work: an
/// implementation knows how its program is called and what its output means, and nothing of git, the backlog or
/// workflows. Whatever a report says is a claim: the caller judges the tree.
/// </summary>
internal interface ICodingAgent
{
    /// <summary>The name used in <c>agent.type</c>.</summary>
    string Type { get; }

    /// <summary>Names of environment variables that this agent, and only it, gets besides the list.</summary>
    IReadOnlyCollection<string> CredentialNames { get; }

    /// <summary>Whether the program is there; asked before the first task, starts nothing.</summary>
    AgentCheck Check();

    /// <summary>
    /// Runs one turn of one attempt, contained. Cancelling the token asks the agent to stop (SIGTERM, grace, SIGKILL) and
    /// returns <see cref="AgentOutcome.Interrupted"/>. Throws only what a hook threw, or when no process can be made at all.
    /// </summary>
    Task<AgentReport> RunAsync(AgentRequest request, AgentHooks hooks, CancellationToken cancellationToken);
}

/// <summary>Whether an agent can be used.</summary>
/// <param name="Path">The program that would run; null when there is a problem.</param>
/// <param name="Version">Its version when it is known without running it.</param>
/// <param name="Problem">One line: what is missing and how to fix it; null when the agent can be used.</param>
internal sealed record AgentCheck(string? Path, string? Version, string? Problem);

/// <summary>Everything an agent needs for one turn. Immutable; made anew for each.</summary>
internal sealed record AgentRequest
{
    /// <summary>The run that the attempt belongs to.</summary>
    public required string RunId { get; init; }

    /// <summary>The task.</summary>
    public required string TaskId { get; init; }

    /// <summary>The task's title.</summary>
    public required string Title { get; init; }

    /// <summary>The number of the attempt, from 1.</summary>
    public required int Attempt { get; init; }

    /// <summary>Absolute path of the worktree; the agent's working directory.</summary>
    public required string Worktree { get; init; }

    /// <summary>The prompt, as <see cref="PromptBuilder"/> makes it.</summary>
    public required string Prompt { get; init; }

    /// <summary>Where the prompt is written, outside the worktree: the agent's standard input, kept for audit.</summary>
    public required string PromptPath { get; init; }

    /// <summary>Where the output is kept.</summary>
    public required string LogPath { get; init; }

    /// <summary>The attempt's own TMPDIR, outside the worktree; made when absent, 0700.</summary>
    public required string TmpDir { get; init; }

    /// <summary>Unique per turn; see <see cref="ContainedProcessSpec.RunToken"/>.</summary>
    public required string RunToken { get; init; }

    /// <summary>The operator's environment and the names that pass.</summary>
    public required ContainedEnvironment Environment { get; init; }

    /// <summary>The agent's own session to go on with, from an earlier report; null starts a new one.</summary>
    public string? ResumeSessionId { get; init; }

    /// <summary>Limits of time.</summary>
    public ProcessClocks Clocks { get; init; } = ProcessClocks.Default;

    /// <summary>Between SIGTERM and SIGKILL. Default 5 s.</summary>
    public TimeSpan StopGrace { get; init; } = TimeSpan.FromSeconds(5);
}

/// <summary>What the caller hears during a turn.</summary>
internal sealed record AgentHooks : ProcessHooks;

/// <summary>How a turn ended, as far as the program tells.</summary>
internal enum AgentOutcome
{
    /// <summary>It says it did the work.</summary>
    Succeeded,
    /// <summary>It says it did not, or could not be started.</summary>
    Failed,
    /// <summary>A clock ended it: <see cref="AgentReport.Clock"/>.</summary>
    TimedOut,
    /// <summary>The caller stopped it.</summary>
    Interrupted,
    /// <summary>A signal that was not ours ended it: <see cref="AgentReport.Signal"/>.</summary>
    Crashed,
    /// <summary>A usage limit; to be continued later, not counted as an attempt.</summary>
    LimitReached,
    /// <summary>Its keeper was lost; what it did is not known.</summary>
    Unknown,
}

/// <summary>The report of one turn.</summary>
/// <param name="Outcome">How it ended.</param>
internal sealed record AgentReport(AgentOutcome Outcome)
{
    /// <summary>The clock that ended it, when one did.</summary>
    public ProcessEnd? Clock { get; init; }

    /// <summary>The program's exit code.</summary>
    public int? ExitCode { get; init; }

    /// <summary>The signal that ended the program.</summary>
    public int? Signal { get; init; }

    /// <summary>When the limit ends, if the agent said so.</summary>
    public DateTimeOffset? LimitResetAt { get; init; }

    /// <summary>One line for people, sanitized.</summary>
    public string Summary { get; init; } = "";

    /// <summary>The agent's session, for the next turn.</summary>
    public string? SessionId { get; init; }

    /// <summary>Tokens read, when known.</summary>
    public long? InputTokens { get; init; }

    /// <summary>Tokens written, when known.</summary>
    public long? OutputTokens { get; init; }

    /// <summary>Cost in US dollars, when known.</summary>
    public decimal? CostUsd { get; init; }

    /// <summary>The end of its output, redacted but not sanitized.</summary>
    public string Tail { get; init; } = "";

    /// <summary>Processes that could not be ended: an error to show.</summary>
    public IReadOnlyList<ProcessIdentity> Survivors { get; init; } = [];

    /// <summary>The contained run below it.</summary>
    public ProcessOutcome? Process { get; init; }
}
