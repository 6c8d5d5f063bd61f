namespace Drover.Workflows;

/// <summary>What went wrong, as a stable code; the command line derives its exit code from it.</summary>
public enum ErrorCode
{
    /// <summary>A value given by the caller is not acceptable; nothing was changed.</summary>
    InvalidInput,
    /// <summary>The named thing does not exist.</summary>
    NotFound,
    /// <summary>The request contradicts the present state (wrong status, id in use, held by someone else).</summary>
    Conflict,
    /// <summary>The database cannot be read or written, or is newer than this program.</summary>
    Database,
    /// <summary>A bounded wait ended before the thing waited for happened.</summary>
    Timeout,
    /// <summary>Workflow code and recorded history disagree, or the body broke the parallel rule.</summary>
    NonDeterminism,
    /// <summary>Another execution owns the workflow now; this one may write nothing more.</summary>
    Fenced,
    /// <summary>The workflow was cancelled (by call or deadline).</summary>
    Cancelled,
    /// <summary>The workflow was moved to the dead-letter state after too many recoveries.</summary>
    DeadLettered,
    /// <summary>A live workflow holds the same deduplication id on the queue.</summary>
    Deduplicated,
    /// <summary>The workflow or step failed with an error of its own.</summary>
    Failed,
    /// <summary>The engine is stopping, or was not started.</summary>
    Unavailable,
    /// <summary>A call was made where it is not allowed (for example an engine call inside a transaction).</summary>
    IllegalCall,
    /// <summary>An outside program (git, an agent, a test command) failed in a way Drover does not know.</summary>
    External,
}

/// <summary>The one exception family of Drover. <see cref="Code"/> is stable; the message is one line: what, where, how to fix.</summary>
public class DroverException : Exception
{
    /// <summary>Creates the exception with its code and a one-line message.</summary>
    public DroverException(ErrorCode code, string message, Exception? inner = null)
        : base(message, inner) => Code = code;

    /// <summary>The stable code.</summary>
    public ErrorCode Code { get; }
}

/// <summary>
/// A workflow's recorded failure, rethrown to whoever awaits it. Foreign exception types are never rebuilt:
/// their name and message travel as text.
/// </summary>
public sealed class WorkflowFailedException : DroverException
{
    /// <summary>Creates the exception from a recorded error.</summary>
    public WorkflowFailedException(string workflowId, string errorName, string message, ErrorCode code = ErrorCode.Failed)
        : base(code, message)
    {
        WorkflowId = workflowId;
        ErrorName = errorName;
    }

    /// <summary>The workflow that failed.</summary>
    public string WorkflowId { get; }

    /// <summary>The recorded error's type name, as the failing program wrote it.</summary>
    public string ErrorName { get; }
}

/// <summary>A step's recorded failure, thrown inside the body both live and on replay, so that both see the same type.</summary>
public sealed class StepFailedException : DroverException
{
    /// <summary>Creates the exception from a step's error.</summary>
    public StepFailedException(string stepName, string errorName, string message, Exception? inner = null)
        : base(ErrorCode.Failed, message, inner)
    {
        StepName = stepName;
        ErrorName = errorName;
    }

    /// <summary>The step that failed.</summary>
    public string StepName { get; }

    /// <summary>The error's type name.</summary>
    public string ErrorName { get; }
}
