namespace Drover.Workflows;

/// <summary>How a step is retried. Attempts and pauses live in memory: a crash begins them again, as in the DBOS SDKs.</summary>
public sealed record StepOptions
{
    internal static StepOptions Default { get; } = new();

    /// <summary>Attempts in all. Default 1: no retry.</summary>
    public int Attempts { get; init; } = 1;

    /// <summary>Pause before the second attempt. Default 1 s.</summary>
    public TimeSpan Backoff { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>Growth of the pause from attempt to attempt. Default 2.</summary>
    public double BackoffFactor { get; init; } = 2;

    /// <summary>The longest pause. Default 1 h.</summary>
    public TimeSpan MaxBackoff { get; init; } = TimeSpan.FromHours(1);

    /// <summary>Says whether an error is worth another attempt; null retries every error.</summary>
    public Func<Exception, bool>? RetryIf { get; init; }
}

/// <summary>What a step may use. Services are resolved here, never in a body.</summary>
public sealed class StepContext
{
    internal StepContext(string workflowId, int stepId, int attempt, IServiceProvider services, CancellationToken cancellationToken) =>
        (WorkflowId, StepId, Attempt, Services, CancellationToken) = (workflowId, stepId, attempt, services, cancellationToken);

    /// <summary>The workflow that runs the step. With <see cref="StepId"/> a key for effects outside.</summary>
    public string WorkflowId { get; }

    /// <summary>The step's number in the workflow.</summary>
    public int StepId { get; }

    /// <summary>1 for the first attempt in this process.</summary>
    public int Attempt { get; }

    /// <summary>The program's services.</summary>
    public IServiceProvider Services { get; }

    /// <summary>Cancelled when the workflow is cancelled, loses its owner, or the host stops.</summary>
    public CancellationToken CancellationToken { get; }
}
