namespace Drover.Orchestrator.CodingAgents;

/// <summary>
/// The built-in agent for demos and tests: free, deterministic, a real process under a real keeper. What it does
/// stands in the task's description as lines beginning with <c>fake:</c>; see <see cref="FakeAgentProgram"/>.
/// </summary>
internal sealed class FakeAgent(KeeperCommand keeper, TimeProvider time) : ICodingAgent
{
    internal const string TypeName = "fake";

    /// <inheritdoc/>
    public string Type => TypeName;

    /// <inheritdoc/>
    public IReadOnlyCollection<string> CredentialNames => [];

    /// <inheritdoc/>
    public AgentCheck Check() =>
        ProgramPath.Resolve(keeper.FileName, Environment.GetEnvironmentVariable("PATH")) is { } found
            ? new(found, typeof(FakeAgent).Assembly.GetName().Version?.ToString(3), null)
            : new(null, null, $"the drover program itself is not found at {keeper.FileName}; install Drover again");

    /// <inheritdoc/>
    public Task<AgentReport> RunAsync(AgentRequest request, AgentHooks hooks, CancellationToken cancellationToken) =>
        AgentTurn.RunAsync(this, [keeper.FileName, .. keeper.Arguments, FakeAgentProgram.Argument], request, hooks, keeper, time, cancellationToken);
}
