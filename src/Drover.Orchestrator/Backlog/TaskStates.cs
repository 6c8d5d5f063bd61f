using System.Text;

namespace Drover.Orchestrator.Backlog;

/// <summary>The statuses that are stored in a task's row.</summary>
public enum StoredStatus
{
    /// <summary>Waits for a run; shown as ready, blocked or unreachable.</summary>
    Open,
    /// <summary>A run has reserved it; its workflow has not begun.</summary>
    Claimed,
    /// <summary>Its workflow works on it.</summary>
    InProgress,
    /// <summary>Waits for a person.</summary>
    Paused,
    /// <summary>Its change is on the target branch, or it needed none.</summary>
    Completed,
    /// <summary>Its attempts are used up, or a person gave it up.</summary>
    Failed,
    /// <summary>A person said that it is not wanted.</summary>
    Cancelled,
}

/// <summary>The statuses that people and <c>--json</c> see: the stored ones with <c>open</c> resolved.</summary>
public enum ShownStatus
{
    /// <summary>Nothing stands before it.</summary>
    Ready,
    /// <summary>Something that can still finish stands before it.</summary>
    Blocked,
    /// <summary>Something that will not finish by itself stands before it.</summary>
    Unreachable,
    /// <inheritdoc cref="StoredStatus.Claimed"/>
    Claimed,
    /// <inheritdoc cref="StoredStatus.InProgress"/>
    InProgress,
    /// <inheritdoc cref="StoredStatus.Paused"/>
    Paused,
    /// <inheritdoc cref="StoredStatus.Completed"/>
    Completed,
    /// <inheritdoc cref="StoredStatus.Failed"/>
    Failed,
    /// <inheritdoc cref="StoredStatus.Cancelled"/>
    Cancelled,
}

/// <summary>Everything that can happen to a task's status.</summary>
public enum TaskCommand
{
    /// <summary>A run reserves the task.</summary>
    Claim,
    /// <summary>The task's workflow begins.</summary>
    Start,
    /// <summary>A person is needed.</summary>
    Pause,
    /// <summary>The change is on the target.</summary>
    Land,
    /// <summary>The attempt ended without a change, with a reason.</summary>
    NoOp,
    /// <summary>The attempt failed and another one is allowed.</summary>
    FailAttempt,
    /// <summary>The attempt failed and no other one is allowed.</summary>
    FailTask,
    /// <summary>The attempt stopped without a verdict (interrupt, limit, full disk); it will be continued.</summary>
    Release,
    /// <summary><c>drover cancel</c>.</summary>
    Cancel,
    /// <summary><c>drover retry</c>.</summary>
    Retry,
    /// <summary><c>drover resolve --accept</c>.</summary>
    ResolveAccept,
    /// <summary><c>drover resolve --continue</c>.</summary>
    ResolveContinue,
    /// <summary><c>drover resolve --abandon</c>.</summary>
    ResolveAbandon,
}

/// <summary>
/// The one table state × command → result. The code that writes statuses, the CHECK of the database and
/// <c>docs/concepts/states.md</c> come from it; nothing else decides a transition.
/// </summary>
public static class TaskStates
{
    private const StoredStatus Open = StoredStatus.Open, Claimed = StoredStatus.Claimed, InProgress = StoredStatus.InProgress,
        Paused = StoredStatus.Paused, Completed = StoredStatus.Completed, Failed = StoredStatus.Failed, Cancelled = StoredStatus.Cancelled;

    private static StoredStatus? No => null;

    /// <summary>The stored statuses in the order of the table's columns.</summary>
    public static IReadOnlyList<StoredStatus> Statuses { get; } = [Open, Claimed, InProgress, Paused, Completed, Failed, Cancelled];

    // A cell that names its own column changes nothing and is no error. Landing is allowed from "open": an attempt that was
    // released while its candidate was already intended lands without a worker.
    private static readonly Row[] Rows =
    [
        //                              open     claimed     in_progress paused     completed  failed     cancelled
        new(TaskCommand.Claim,          Claimed, No,         No,         No,        No,        No,        No),
        new(TaskCommand.Start,          No,      InProgress, No,         No,        No,        No,        No),
        new(TaskCommand.Pause,          No,      Paused,     Paused,     No,        No,        No,        No),
        new(TaskCommand.Land,           Completed, Completed, Completed, No,        No,        No,        No),
        new(TaskCommand.NoOp,           No,      No,         Completed,  No,        No,        No,        No),
        new(TaskCommand.FailAttempt,    No,      Open,       Open,       No,        No,        No,        No),
        new(TaskCommand.FailTask,       Failed,  Failed,     Failed,     No,        No,        No,        No),
        new(TaskCommand.Release,        No,      Open,       Open,       No,        No,        No,        No),
        new(TaskCommand.Cancel,         Cancelled, Cancelled, Cancelled, Cancelled, No,        No,        Cancelled),
        new(TaskCommand.Retry,          Open,    No,         No,         No,        No,        Open,      Open),
        new(TaskCommand.ResolveAccept,  No,      No,         No,         Open,      No,        No,        No),
        new(TaskCommand.ResolveContinue, No,     No,         No,         Open,      No,        No,        No),
        new(TaskCommand.ResolveAbandon, No,      No,         No,         Failed,    No,        No,        No),
    ];

    /// <summary>The status after a command; null when the command is refused in that status.</summary>
    public static StoredStatus? Next(StoredStatus status, TaskCommand command) => Rows[(int)command].Cells[(int)status];

    /// <summary>One line why a command is refused, with what to do instead.</summary>
    public static string Refusal(string task, StoredStatus status, TaskCommand command)
    {
        string fix = status switch
        {
            Open => "it waits for a run; see `drover info`",
            Claimed or InProgress => "it is being worked on; `drover cancel` stops it",
            Paused => "it waits for an answer; use `drover resolve`",
            Completed => "it is done and stays done; add a new task for further work",
            _ => "use `drover retry`",
        };
        return $"{task} is {status.Word()}: cannot {command.Word()} ({fix})";
    }

    /// <summary>The list of stored words for an SQL CHECK or IN, quoted.</summary>
    internal static string SqlWords { get; } = string.Join(", ", Statuses.Select(s => $"'{s.Word()}'"));

    /// <summary>The word that is stored and shown.</summary>
    public static string Word(this StoredStatus status) => status switch
    {
        Open => "open",
        Claimed => "claimed",
        InProgress => "in_progress",
        Paused => "paused",
        Completed => "completed",
        Failed => "failed",
        _ => "cancelled",
    };

    /// <summary>The word that is shown.</summary>
    public static string Word(this ShownStatus status) => status switch
    {
        ShownStatus.Ready => "ready",
        ShownStatus.Blocked => "blocked",
        ShownStatus.Unreachable => "unreachable",
        ShownStatus.InProgress => "in_progress",
        _ => status.ToString().ToLowerInvariant(),
    };

    /// <summary>The words of a command, as in <c>drover resolve --accept</c>.</summary>
    public static string Word(this TaskCommand command) => command switch
    {
        TaskCommand.NoOp => "finish without a change",
        TaskCommand.FailAttempt => "fail (attempts left)",
        TaskCommand.FailTask => "fail (none left)",
        TaskCommand.ResolveAccept => "resolve --accept",
        TaskCommand.ResolveContinue => "resolve --continue",
        TaskCommand.ResolveAbandon => "resolve --abandon",
        _ => command.ToString().ToLowerInvariant(),
    };

    /// <summary>Reads a stored word.</summary>
    /// <exception cref="Workflows.DroverException">The word is not one of ours: the row was written by something else.</exception>
    public static StoredStatus Parse(string word) => word switch
    {
        "open" => Open,
        "claimed" => Claimed,
        "in_progress" => InProgress,
        "paused" => Paused,
        "completed" => Completed,
        "failed" => Failed,
        "cancelled" => Cancelled,
        _ => throw new Workflows.DroverException(Workflows.ErrorCode.Database, $"unknown task status '{word}' in the database: install the newer drover"),
    };

    /// <summary>The table as the document shows it.</summary>
    public static string Markdown()
    {
        var text = new StringBuilder("| command |");
        foreach (StoredStatus status in Statuses)
            text.Append(' ').Append(status.Word()).Append(" |");
        text.Append("\n|---|").Insert(text.Length, "---|", Statuses.Count).Append('\n');
        foreach (Row row in Rows)
        {
            text.Append("| ").Append(row.Command.Word()).Append(" |");
            for (int i = 0; i < row.Cells.Length; i++)
            {
                string cell = row.Cells[i] is not { } next ? "–" : next == Statuses[i] ? "no change" : next.Word();
                text.Append(' ').Append(cell).Append(" |");
            }
            text.Append('\n');
        }
        return text.ToString();
    }

    private sealed record Row(TaskCommand Command, params StoredStatus?[] Cells);
}
