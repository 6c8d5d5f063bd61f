using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.CodingAgents;
using Drover.Orchestrator.Gates;
using Drover.Orchestrator.Runs;
using Drover.Orchestrator.Settings;
using Drover.Workflows;
using Drover.Workflows.Sqlite;

namespace Drover.Cli;

/// <summary>Everything that must be right before the first task, looked at without changing anything.</summary>
internal static class RunChecks
{
    /// <summary>Looks at what the rows say: a database of this version, the epic, and a test command for every task that is left.</summary>
    /// <exception cref="DroverException">The first thing that is wrong.</exception>
    public static async Task CheckRowsAsync(Project project, string? epic, CancellationToken cancellationToken)
    {
        foreach (string command in await project.ReadAsync(db => TestCommands(db, project, epic), cancellationToken))
            Gate(command, project);
    }

    /// <summary>Checks everything a run checks, and takes nothing; returns the target's full name.</summary>
    /// <exception cref="DroverException">The first thing that is wrong.</exception>
    public static async Task<string> CheckAllAsync(Project project, RunOptions given, CancellationToken cancellationToken)
    {
        await CheckRowsAsync(project, given.Epic, cancellationToken);
        await using var dialect = new SqliteDialect(project.Database.Path, create: false);
        return await RunHost.CheckOnlyAsync(new RunHostOptions { Directory = project.Root, Settings = project.Settings, Dialect = dialect, Given = given }, cancellationToken);
    }

    /// <summary>The agent's program and version; throws when it cannot be used.</summary>
    public static AgentCheck Agent(ProjectSettings settings)
    {
        AgentCheck check = AgentTypes.Create(settings.AgentType, settings.AgentPath, KeeperCommand.Default, TimeProvider.System).Check();
        return check.Problem is { } problem ? throw new DroverException(ErrorCode.InvalidInput, problem) : check;
    }

    /// <summary>The program of a test command; throws when there is none.</summary>
    public static string Gate(string command, Project project)
    {
        GateCommand gate = GateCommand.Parse(command);
        return gate.FindProgram(project.Root, project.Caller.Environment.GetValueOrDefault("PATH"))
            ?? throw new DroverException(ErrorCode.InvalidInput, $"the test command's program '{TerminalText.SanitizeLine(gate.Argv[0], 80)}' is not found: install it, or `drover config set testCommand <command>`");
    }

    private static List<string> TestCommands(Workflows.Storage.SqlSession db, Project project, string? epic)
    {
        if (epic is not null)
            Board.GetEpic(db, project.Id, epic);
        List<(string Id, string? Command)> tasks = db.Query(
            "SELECT id, test_command FROM {d}tasks WHERE project = @project AND (@epic IS NULL OR epic = @epic2) AND status NOT IN ('completed', 'failed', 'cancelled')",
            r => (r.GetString(0), r.IsDBNull(1) ? null : r.GetString(1)), ("@project", project.Id), ("@epic", epic), ("@epic2", epic));
        if (project.Settings.TestCommand is null && tasks.FirstOrDefault(t => t.Command is null) is { Id: { } without })
            throw new DroverException(ErrorCode.InvalidInput, $"there is no test command for {without}: `drover config set testCommand <command>` (or `true`, to land without a test)");
        return [.. tasks.Select(t => t.Command ?? project.Settings.TestCommand!).Distinct(StringComparer.Ordinal)];
    }
}
