namespace Drover.Workflows;

/// <summary>The stored state of a workflow (DBOS reference 2.1).</summary>
public enum WorkflowState
{
    /// <summary>On a queue, not eligible before its delay has passed.</summary>
    Delayed,
    /// <summary>On a queue, waiting for a claim.</summary>
    Enqueued,
    /// <summary>Claimed or started directly; presumed running.</summary>
    Pending,
    /// <summary>Finished with a result.</summary>
    Success,
    /// <summary>Finished with an error.</summary>
    Error,
    /// <summary>Cancelled by call or deadline; can be resumed.</summary>
    Cancelled,
    /// <summary>Dead letter: recovered too often; can be resumed.</summary>
    MaxRecoveryAttemptsExceeded,
}

/// <summary>One workflow as the database shows it. Times are UTC.</summary>
public sealed record WorkflowStatus
{
    /// <summary>The workflow's id.</summary>
    public required string Id { get; init; }
    /// <summary>The registered name of its body.</summary>
    public required string Name { get; init; }
    /// <summary>Its state.</summary>
    public required WorkflowState State { get; init; }
    /// <summary>The queue, when it is or was on one.</summary>
    public string? QueueName { get; init; }
    /// <summary>The executor that started it last.</summary>
    public string? ExecutorId { get; init; }
    /// <summary>The application version that may run it; null means the latest.</summary>
    public string? ApplicationVersion { get; init; }
    /// <summary>Priority on its queue; lower starts first.</summary>
    public int Priority { get; init; }
    /// <summary>How often it was claimed or started.</summary>
    public long RecoveryAttempts { get; init; }
    /// <summary>When it was created.</summary>
    public DateTimeOffset CreatedAt { get; init; }
    /// <summary>When it ended; null while it has not.</summary>
    public DateTimeOffset? CompletedAt { get; init; }
    /// <summary>When it will be cancelled; null without a deadline.</summary>
    public DateTimeOffset? Deadline { get; init; }
    /// <summary>Its input as stored (portable JSON).</summary>
    public string? Input { get; init; }
    /// <summary>Its result as stored; null unless it succeeded.</summary>
    public string? Output { get; init; }
    /// <summary>Its error as stored; null unless it failed.</summary>
    public string? Error { get; init; }
    /// <summary>The workflow that continues it, when it ended by continuing as new.</summary>
    public string? ContinuedAs { get; init; }

    /// <summary>True when the state cannot change without an explicit command.</summary>
    public bool IsEnded => State is WorkflowState.Success or WorkflowState.Error or WorkflowState.Cancelled or WorkflowState.MaxRecoveryAttemptsExceeded;
}

/// <summary>One recorded step.</summary>
/// <param name="Id">Its number in the workflow, from 0.</param>
/// <param name="Name">Its name.</param>
/// <param name="Output">Its result as stored; null when it failed or has none.</param>
/// <param name="Error">Its error as stored.</param>
/// <param name="CompletedAtMs">When it was recorded, ms since the Unix epoch.</param>
public sealed record StepStatus(int Id, string Name, string? Output, string? Error, long CompletedAtMs);

internal static class WorkflowStates
{
    public static WorkflowState Parse(string? text) => text switch
    {
        "DELAYED" => WorkflowState.Delayed,
        "ENQUEUED" => WorkflowState.Enqueued,
        "PENDING" => WorkflowState.Pending,
        "SUCCESS" => WorkflowState.Success,
        "ERROR" => WorkflowState.Error,
        "CANCELLED" => WorkflowState.Cancelled,
        "MAX_RECOVERY_ATTEMPTS_EXCEEDED" => WorkflowState.MaxRecoveryAttemptsExceeded,
        _ => throw new DroverException(ErrorCode.Database, $"unknown workflow status '{text}' in the database: it was written by a newer program"),
    };

    public static string Text(WorkflowState state) => state switch
    {
        WorkflowState.Delayed => "DELAYED",
        WorkflowState.Enqueued => "ENQUEUED",
        WorkflowState.Pending => "PENDING",
        WorkflowState.Success => "SUCCESS",
        WorkflowState.Error => "ERROR",
        WorkflowState.Cancelled => "CANCELLED",
        _ => "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
    };
}
