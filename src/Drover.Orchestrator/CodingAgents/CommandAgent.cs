namespace Drover.Orchestrator.CodingAgents;

/// <summary>
/// Any program as an agent: started in the worktree without arguments, prompt on standard input, the task's facts
/// in <c>DROVER_*</c>. Exit code 0 means done, 75 (EX_TEMPFAIL) "a limit, try later", another one failed.
/// </summary>
internal sealed class CommandAgent(string path, KeeperCommand keeper, TimeProvider time) : ICodingAgent
{
    internal const string TypeName = "command";

    // Relative to where the operator typed it, not to the worktree, where an agent could put a program of that name.
    private readonly string program = path.Contains('/', StringComparison.Ordinal) ? Path.GetFullPath(path) : path;

    /// <inheritdoc/>
    public string Type => TypeName;

    /// <inheritdoc/>
    public IReadOnlyCollection<string> CredentialNames => [];

    /// <inheritdoc/>
    public AgentCheck Check()
    {
        var found = ProgramPath.Resolve(program, Environment.GetEnvironmentVariable("PATH"));
        if (found is not null)
            return new(found, null, null);
        var shown = TerminalText.SanitizeLine(program, 200);
        return new(null, null, File.Exists(program)
            ? $"the agent program {shown} is not executable; run `chmod +x` on it"
            : $"the agent program {shown} is not there; set DROVER_AGENT_PATH or agent.path to an executable file");
    }

    /// <inheritdoc/>
    public Task<AgentReport> RunAsync(AgentRequest request, AgentHooks hooks, CancellationToken cancellationToken) =>
        AgentTurn.RunAsync(this, [program], request, hooks, keeper, time, cancellationToken);
}
