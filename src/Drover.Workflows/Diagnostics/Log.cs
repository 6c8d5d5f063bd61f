using Microsoft.Extensions.Logging;

namespace Drover.Workflows.Diagnostics;

/// <summary>Every message the engine logs, generated.</summary>
internal static partial class Log
{
    [LoggerMessage(1, LogLevel.Error, "the volume that holds {Location} is full or fails: nothing is acknowledged until space returns")]
    public static partial void DatabaseFull(ILogger log, string location);

    [LoggerMessage(2, LogLevel.Warning, "workflow {WorkflowId} is now owned by another execution; this one stops and waits for its outcome")]
    public static partial void Parked(ILogger log, string workflowId);

    [LoggerMessage(3, LogLevel.Information, "took over {Count} workflows of the dead executor {ExecutorId}")]
    public static partial void TookOver(ILogger log, int count, string executorId);

    [LoggerMessage(4, LogLevel.Error, "workflow {WorkflowId} ({Name}) went to the dead-letter state: {Reason}")]
    public static partial void DeadLettered(ILogger log, string workflowId, string name, string reason);

    [LoggerMessage(5, LogLevel.Error, "workflow {WorkflowId} has no registered body named {Name}; it waits for a program that has one")]
    public static partial void NotRegistered(ILogger log, string workflowId, string name);

    [LoggerMessage(6, LogLevel.Error, "the {Loop} loop failed and goes on after a pause")]
    public static partial void LoopFailed(ILogger log, Exception error, string loop);

    [LoggerMessage(7, LogLevel.Error, "the outcome of workflow {WorkflowId} could not be recorded; it stays pending and is tried again")]
    public static partial void OutcomeLost(ILogger log, Exception error, string workflowId);

    [LoggerMessage(8, LogLevel.Critical, "this executor lost its lease; its work is stopped")]
    public static partial void LeaseLost(ILogger log);

    [LoggerMessage(9, LogLevel.Warning, "step {Step} of workflow {WorkflowId} failed in attempt {Attempt} and is tried again: {Error}")]
    public static partial void StepRetried(ILogger log, string step, string workflowId, int attempt, string error);

    [LoggerMessage(10, LogLevel.Error, "the database {Location} does not answer while the engine stops: {Count} records were given up")]
    public static partial void WriterAbandoned(ILogger log, int count, string location);

    [LoggerMessage(11, LogLevel.Warning, "the work of this executor could not be given back at its stop; the next start takes it over")]
    public static partial void NotGivenBack(ILogger log, Exception error);

    [LoggerMessage(12, LogLevel.Warning, "the stop was not waited for: steps of {Count} workflows still run; nobody takes these over before this process ends")]
    public static partial void StepsLeftRunning(ILogger log, int count);

    [LoggerMessage(13, LogLevel.Error, "workflow {WorkflowId} could not be given back or set aside; the dispatcher tries again")]
    public static partial void GiveBackFailed(ILogger log, Exception error, string workflowId);

    [LoggerMessage(14, LogLevel.Warning, "gave back {Count} workflows that were owned by this executor without running in it")]
    public static partial void OrphansGivenBack(ILogger log, int count);
}
