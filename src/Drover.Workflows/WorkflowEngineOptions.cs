using System.Text.Json.Serialization.Metadata;
using Drover.Workflows.Storage;

namespace Drover.Workflows;

/// <summary>Everything an engine needs to know. Sealed when the engine starts.</summary>
public sealed class WorkflowEngineOptions
{
    /// <summary>The database; set by <c>UseSqlite</c>.</summary>
    public SqlDialect? Dialect { get; set; }

    /// <summary>Owner of the rows this program writes, and filter of those it runs; null serves every application.</summary>
    public string? ApplicationName { get; set; }

    /// <summary>Default: a hash of the registered names and of the assemblies that define the bodies. A workflow is recovered only by its own version.</summary>
    public string? ApplicationVersion { get; set; }

    /// <summary>JSON contexts with the types of inputs, results, messages and steps.</summary>
    public IList<IJsonTypeInfoResolver> JsonContexts { get; } = [];

    /// <summary>The workflows this program can run.</summary>
    public IList<WorkflowDefinition> Workflows { get; } = [];

    /// <summary>The queues it serves. The internal queue is always served.</summary>
    public IList<WorkflowQueue> Queues { get; } = [];

    /// <summary>Tables of other parts of the program, created and migrated with the engine's own.</summary>
    public IList<MigrationSet> Migrations { get; } = [];

    /// <summary>How long an executor's lease lasts; it is renewed at a third of that. Default 30 s.</summary>
    public TimeSpan Lease { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>The clock. Default: the system's.</summary>
    public TimeProvider Time { get; set; } = TimeProvider.System;

    /// <summary>Called before the work of a dead executor is taken over, to end processes it left on this machine.</summary>
    public Func<ExecutorInfo, CancellationToken, Task>? OnExecutorDead { get; set; }

    /// <summary>Registers JSON contexts.</summary>
    public WorkflowEngineOptions UseJson(params IJsonTypeInfoResolver[] contexts)
    {
        ArgumentNullException.ThrowIfNull(contexts);
        foreach (IJsonTypeInfoResolver context in contexts)
            JsonContexts.Add(context);
        return this;
    }

    /// <summary>Registers a workflow.</summary>
    public WorkflowEngineOptions AddWorkflow(WorkflowDefinition workflow)
    {
        Workflows.Add(workflow);
        return this;
    }

    /// <summary>Registers a queue to serve.</summary>
    public WorkflowEngineOptions AddQueue(WorkflowQueue queue)
    {
        Queues.Add(queue);
        return this;
    }
}
