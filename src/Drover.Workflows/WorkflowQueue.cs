using Drover.Workflows.Storage;

namespace Drover.Workflows;

/// <summary>A queue of workflows. Within it the lower priority starts first, then the older.</summary>
/// <param name="Name">Its name, unique in the database. Names beginning with <c>_dbos_</c> are reserved.</param>
public sealed record WorkflowQueue(string Name)
{
    /// <summary>How many workflows of the queue may run at once over all executors; null means no limit.</summary>
    public int? Concurrency { get; init; }

    /// <summary>How many may run at once in this process; null means no limit but the engine's.</summary>
    public int? WorkerConcurrency { get; init; }
}

/// <summary>How a workflow is enqueued.</summary>
public sealed record EnqueueOptions
{
    /// <summary>The workflow's id: the idempotency key. Default: a new version-7 uuid.</summary>
    public string? WorkflowId { get; init; }

    /// <summary>Only one live workflow of the queue may hold this id.</summary>
    public string? DeduplicationId { get; init; }

    /// <summary>With a taken deduplication id: return the holder instead of throwing. Default false.</summary>
    public bool ReturnDeduplicated { get; init; }

    /// <summary>0 … 2,147,483,647; lower starts first. Default 0.</summary>
    public int Priority { get; init; }

    /// <summary>The workflow is cancelled when it has run this long; the clock starts when it is claimed.</summary>
    public TimeSpan? Timeout { get; init; }

    /// <summary>The workflow becomes eligible after this time.</summary>
    public TimeSpan? Delay { get; init; }

    /// <summary>The application version that may run it. Default: the version of the program that enqueues, null from a client (the latest).</summary>
    public string? Version { get; init; }

    internal NewWorkflow ToNew(WorkflowQueue queue, string name, string inputs, string? version)
    {
        if (Priority < 0)
            throw new DroverException(ErrorCode.InvalidInput, $"priority {Priority} is negative: use 0 or more, lower starts first");
        if (WorkflowId is { } id && string.IsNullOrWhiteSpace(id))
            throw new DroverException(ErrorCode.InvalidInput, "a workflow id may not be empty");
        return new NewWorkflow
        {
            Id = WorkflowId ?? Guid.CreateVersion7().ToString(),
            Name = name,
            Inputs = inputs,
            Version = version,
            QueueName = queue.Name,
            DeduplicationId = DeduplicationId,
            ReturnDeduplicated = ReturnDeduplicated,
            Priority = Priority,
            TimeoutMs = Timeout is { } timeout ? (long)Math.Ceiling(timeout.TotalMilliseconds) : null,
            DelayMs = Delay is { } delay ? (long)Math.Ceiling(delay.TotalMilliseconds) : null,
        };
    }
}

/// <summary>How a workflow is started directly, without a queue.</summary>
public sealed record StartOptions
{
    /// <summary>The workflow's id: the idempotency key. Default: a new version-7 uuid.</summary>
    public string? WorkflowId { get; init; }

    /// <summary>The workflow is cancelled when it has run this long.</summary>
    public TimeSpan? Timeout { get; init; }
}
