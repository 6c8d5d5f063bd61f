using System.Text.Json.Serialization;
using Drover.Workflows;

namespace Drover.Orchestrator.Runs;

/// <summary>Protocol facts that every recorded row depends on: names, ids, versions.</summary>
internal static class Protocol
{
    /// <summary>Raised whenever an orchestrator workflow changes without a patch marker (DESIGN 3.9).</summary>
    public const int Current = 1;

    public const string Version = "drover-1";

    public const string TasksTopic = "tasks";

    public const string LandingTopic = "landing";

    public static string Application(string project) => $"drover/{project}";

    public static WorkflowQueue TaskQueue(string project, int workers) => new($"drover-tasks/{project}") { Concurrency = workers };

    // One lane a target: its deduplication id sees to that. A lane whose candidates are held must not stop another target's.
    public static WorkflowQueue LandingQueue(string project) => new($"drover-landings/{project}");

    public static WorkflowQueue RunQueue(string project) => new($"drover-runs/{project}") { Concurrency = 1 };

    /// <summary>The backlog says "higher = sooner", the engine "lower first".</summary>
    public static int EnginePriority(int backlogPriority) => (int)Math.Clamp(1_000_000L - backlogPriority, 1, int.MaxValue);

    /// <summary>The protocol number of a recorded version; null when it is not one of ours.</summary>
    public static int? NumberOf(string? version) =>
        version is not null && version.StartsWith("drover-", StringComparison.Ordinal) && int.TryParse(version.AsSpan(7), out int n) ? n : null;
}

/// <summary>Input of a run's workflow. The options are columns of the run's row, not input.</summary>
internal sealed record RunInput(string Project, string Run);

/// <summary>What a run's workflow did in one look at the backlog.</summary>
internal sealed record RunLook(int Started, string? Outcome, long? NextStart);

/// <summary>Input of a task's workflow.</summary>
internal sealed record TaskInput(string Project, string Run, string Task, int Attempt, int Continuation, int MaxAttempts);

/// <summary>Where an attempt stands when its workflow begins.</summary>
internal sealed record TaskStart(string Target, string BaseOid, string Date, string Entry, string? WorkOid, string? TreeOid, bool Accepted, bool Answered, int Turns, bool ConflictTurnUsed, TurnGiven? Given);

/// <summary>A worktree that is ready for the agent, or why it is not.</summary>
internal sealed record WorktreeReady(string Path, string? Problem);

/// <summary>What an agent's turn came to.</summary>
internal sealed record TurnResult(string Outcome, string Summary, bool Spoke, int? ExitCode, string? SessionId, long? Tokens, long? CostMicros, long? LimitResetMs);

/// <summary>What the worktree held after a turn, as a commit; or, with <see cref="Lost"/>, why there is no worktree to commit.</summary>
internal sealed record CommitResult(string WorkOid, string TreeOid, bool IsNoOp, int Paths, string? PauseReason, string? Question, string? Lost = null);

/// <summary>What the merge onto the target's tip, and the gate on that exact tree, came to.</summary>
internal sealed record GateOutcome(string Verdict, string Tip, string? Tree, string? Text, string? ConflictTree, IReadOnlyList<string>? ConflictPaths);

/// <summary>A conflict turned over to the agent.</summary>
/// <remarks>Tree is the one with the markers: what an agent that did nothing leaves.</remarks>
internal sealed record TurnGiven(string Work, string Tip, string Scaffold, string Tree, IReadOnlyList<string> Paths, string Hunks);

/// <summary>Input of a landing lane.</summary>
internal sealed record LaneInput(string Project, string Target);

/// <summary>The candidate that the lane takes next.</summary>
internal sealed record LaneCandidate(
    string Task, int Attempt, string Title, string WorkOid, string? TreeOid, string? EvidenceTip, string? IntendedOid, string? IntendedBase,
    string BaseOid, string? TestCommand, long QueuedAt, bool Held, string? WorkflowId);

/// <summary>What the lane may do with a candidate now.</summary>
internal sealed record LanePlan(string Verdict, string? Oid, string? Tip, string? Text, IReadOnlyList<string>? Paths);

/// <summary>What the target's move came to.</summary>
internal sealed record LaneMove(string Verdict, string? Text, IReadOnlyList<string>? Paths);

[JsonSerializable(typeof(RunInput))]
[JsonSerializable(typeof(RunLook))]
[JsonSerializable(typeof(TaskInput))]
[JsonSerializable(typeof(TaskStart))]
[JsonSerializable(typeof(WorktreeReady))]
[JsonSerializable(typeof(TurnResult))]
[JsonSerializable(typeof(CommitResult))]
[JsonSerializable(typeof(GateOutcome))]
[JsonSerializable(typeof(TurnGiven))]
[JsonSerializable(typeof(LaneInput))]
[JsonSerializable(typeof(LaneCandidate))]
[JsonSerializable(typeof(LanePlan))]
[JsonSerializable(typeof(LaneMove))]
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
internal sealed partial class RunJson : JsonSerializerContext;
