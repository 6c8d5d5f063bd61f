using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Drover.Workflows.Serialization;

namespace Drover.Workflows;

/// <summary>Limits of a workflow's recovery.</summary>
public sealed record WorkflowLimits
{
    /// <summary>Claims after which the workflow goes to the dead-letter state; null means no limit. Default 100, as in the DBOS SDKs.</summary>
    public int? MaxRecoveryAttempts { get; init; } = 100;

    /// <summary>Recoveries in a row without a newly recorded step after which it goes there too; null means no limit. Default 20.</summary>
    public int? MaxStalledRecoveries { get; init; } = 20;

    /// <summary>Neither limit: for workflows that must outlive any number of crashes.</summary>
    public static WorkflowLimits None { get; } = new() { MaxRecoveryAttempts = null, MaxStalledRecoveries = null };
}

/// <summary>A workflow's name and body, without its types: what the registry holds.</summary>
public abstract class WorkflowDefinition
{
    private protected WorkflowDefinition(string name, IReadOnlyList<string> parameters, WorkflowLimits? limits, Type home)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(name);
        (Name, Parameters, Limits, Home) = (name, parameters, limits ?? new(), home);
    }

    /// <summary>The registered name: part of the recorded protocol.</summary>
    public string Name { get; }

    /// <summary>The limits of its recovery.</summary>
    public WorkflowLimits Limits { get; }

    /// <summary>Parameter names as they may appear on the wire.</summary>
    internal IReadOnlyList<string> Parameters { get; }

    /// <summary>A type of the assembly that defines the body; its module version enters the default application version.</summary>
    internal Type Home { get; }

    /// <summary>Runs the body; returns the result as JSON.</summary>
    internal abstract Task<string> InvokeAsync(WorkflowContext context, string[] arguments, PortableJson json);
}

/// <summary>A workflow whose result is a <typeparamref name="TOut"/>.</summary>
public abstract class WorkflowDefinition<TOut> : WorkflowDefinition
{
    private protected WorkflowDefinition(string name, IReadOnlyList<string> parameters, WorkflowLimits? limits, Type home)
        : base(name, parameters, limits, home)
    {
    }
}

/// <summary>A workflow without input.</summary>
public sealed class Workflow<TOut> : WorkflowDefinition<TOut>
{
    private readonly Func<WorkflowContext, Task<TOut>> _body;

    internal Workflow(string name, Func<WorkflowContext, Task<TOut>> body, WorkflowLimits? limits)
        : base(name, [], limits, body.Method.DeclaringType ?? typeof(Workflow)) => _body = body;

    internal override async Task<string> InvokeAsync(WorkflowContext context, string[] arguments, PortableJson json) =>
        json.Write(await _body(context));
}

/// <summary>A workflow with one input.</summary>
public sealed class Workflow<TIn, TOut> : WorkflowDefinition<TOut>
{
    private readonly Func<WorkflowContext, TIn, Task<TOut>> _body;

    internal Workflow(string name, Func<WorkflowContext, TIn, Task<TOut>> body, WorkflowLimits? limits, IReadOnlyList<string> parameters)
        : base(name, parameters, limits, body.Method.DeclaringType ?? typeof(Workflow)) => _body = body;

    internal override async Task<string> InvokeAsync(WorkflowContext context, string[] arguments, PortableJson json) =>
        json.Write(await _body(context, json.Read<TIn>(arguments[0])!));
}

/// <summary>A workflow with two inputs.</summary>
public sealed class Workflow<T1, T2, TOut> : WorkflowDefinition<TOut>
{
    private readonly Func<WorkflowContext, T1, T2, Task<TOut>> _body;

    internal Workflow(string name, Func<WorkflowContext, T1, T2, Task<TOut>> body, WorkflowLimits? limits, IReadOnlyList<string> parameters)
        : base(name, parameters, limits, body.Method.DeclaringType ?? typeof(Workflow)) => _body = body;

    internal override async Task<string> InvokeAsync(WorkflowContext context, string[] arguments, PortableJson json) =>
        json.Write(await _body(context, json.Read<T1>(arguments[0])!, json.Read<T2>(arguments[1])!));
}

/// <summary>A workflow with three inputs.</summary>
public sealed class Workflow<T1, T2, T3, TOut> : WorkflowDefinition<TOut>
{
    private readonly Func<WorkflowContext, T1, T2, T3, Task<TOut>> _body;

    internal Workflow(string name, Func<WorkflowContext, T1, T2, T3, Task<TOut>> body, WorkflowLimits? limits, IReadOnlyList<string> parameters)
        : base(name, parameters, limits, body.Method.DeclaringType ?? typeof(Workflow)) => _body = body;

    internal override async Task<string> InvokeAsync(WorkflowContext context, string[] arguments, PortableJson json) =>
        json.Write(await _body(context, json.Read<T1>(arguments[0])!, json.Read<T2>(arguments[1])!, json.Read<T3>(arguments[2])!));
}

/// <summary>
/// Declares workflows. A body is deterministic: everything outside happens in steps. The name, the order of the steps and
/// their names are the recorded protocol.
/// </summary>
public static class Workflow
{
    /// <summary>A workflow without input.</summary>
    public static Workflow<TOut> Define<TOut>(string name, Func<WorkflowContext, Task<TOut>> body, WorkflowLimits? limits = null)
    {
        ArgumentNullException.ThrowIfNull(body);
        return new(name, body, limits);
    }

    /// <summary>A workflow with one input. <paramref name="parameter"/> is its name on the wire for callers that pass arguments by name.</summary>
    public static Workflow<TIn, TOut> Define<TIn, TOut>(
        string name, Func<WorkflowContext, TIn, Task<TOut>> body, WorkflowLimits? limits = null, string parameter = "input")
    {
        ArgumentNullException.ThrowIfNull(body);
        return new(name, body, limits, [parameter]);
    }

    /// <summary>A workflow with two inputs.</summary>
    public static Workflow<T1, T2, TOut> Define<T1, T2, TOut>(
        string name, Func<WorkflowContext, T1, T2, Task<TOut>> body, WorkflowLimits? limits = null, string first = "first", string second = "second")
    {
        ArgumentNullException.ThrowIfNull(body);
        return new(name, body, limits, [first, second]);
    }

    /// <summary>A workflow with three inputs.</summary>
    public static Workflow<T1, T2, T3, TOut> Define<T1, T2, T3, TOut>(
        string name, Func<WorkflowContext, T1, T2, T3, Task<TOut>> body, WorkflowLimits? limits = null,
        string first = "first", string second = "second", string third = "third")
    {
        ArgumentNullException.ThrowIfNull(body);
        return new(name, body, limits, [first, second, third]);
    }
}
