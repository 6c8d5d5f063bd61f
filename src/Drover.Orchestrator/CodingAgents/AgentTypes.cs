using Drover.Workflows;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>The agents that can be named in <c>agent.type</c>.</summary>
internal static class AgentTypes
{
    private static readonly string[] Later = ["claude", "codex", "amp", "opencode"];

    /// <summary>
    /// The agent for a type and, for <c>command</c>, its program (<c>DROVER_AGENT_PATH</c>, <c>agent.path</c>).
    /// Throws <see cref="DroverException"/> (InvalidInput) for a type that is unknown or not there yet, or a missing program name.
    /// </summary>
    internal static ICodingAgent Create(string type, string? path, KeeperCommand keeper, TimeProvider time) => type switch
    {
        FakeAgent.TypeName => new FakeAgent(keeper, time),
        CommandAgent.TypeName when !string.IsNullOrWhiteSpace(path) => new CommandAgent(path, keeper, time),
        CommandAgent.TypeName => throw new DroverException(ErrorCode.InvalidInput,
            "agent type 'command' needs a program: set DROVER_AGENT_PATH or `drover config set agent.path <program>`"),
        _ when Later.Contains(type, StringComparer.Ordinal) => throw new DroverException(ErrorCode.InvalidInput,
            $"agent type '{type}' is not in this version yet; use 'command' with agent.path, or 'fake'"),
        _ => throw new DroverException(ErrorCode.InvalidInput,
            $"unknown agent type '{TerminalText.SanitizeLine(type, 40)}'; known are command, fake (and, in a later version, {string.Join(", ", Later)})"),
    };
}
