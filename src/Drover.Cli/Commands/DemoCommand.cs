using System.CommandLine;
using System.Diagnostics;
using Drover.Cli.Terminal;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.CodingAgents;
using Drover.Orchestrator.Git;
using Drover.Orchestrator.Runs;
using Drover.Workflows;

namespace Drover.Cli.Commands;

/// <summary><c>drover demo</c>: the same run as <c>drover run</c>, on a repository of its own, with the scripted agent.</summary>
internal sealed class DemoCommand
{
    private readonly Caller _caller;
    private readonly string _folder;
    private readonly GitClient _git = new();

    private DemoCommand(Caller caller, string folder) => (_caller, _folder) = (caller with { Folder = folder, Environment = Clean(caller.Environment) }, folder);

    public static Command Create(Caller caller)
    {
        var crash = new Option<bool>("--crash") { Description = "Kill the run in the middle, resume it, and prove that nothing was lost or done twice." };
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("demo", "Run a small backlog in a new git repository with a scripted agent: free, offline, nothing of yours is touched.") { crash, json };
        command.SetAction((parsed, cancellationToken) =>
            new DemoCommand(caller, Directory.CreateTempSubdirectory("drover-demo-").FullName).RunAsync(parsed.GetValue(crash), parsed.GetValue(json), parsed.GetValue(GlobalOptions.Verbose), cancellationToken));
        return command;
    }

    private async Task<int> RunAsync(bool crash, bool json, bool verbose, CancellationToken cancellationToken)
    {
        // The run reads the process's environment: the demo must not depend on the user's git settings or be led to his databases.
        foreach ((string name, _) in _caller.Environment.Where(v => v.Value is null).ToList())
            Environment.SetEnvironmentVariable(name, null);
        Environment.SetEnvironmentVariable("GIT_CONFIG_GLOBAL", "/dev/null");
        Project project = await PrepareAsync(cancellationToken);
        _caller.Output.Say("demo repository: ", (_folder, Colour.Cyan));
        _caller.Output.Say($"{DemoContent.Count} tasks, 3 workers, the scripted agent `fake`, gate `{DemoContent.TestCommand}`");
        if (crash)
            await CrashAsync(project, cancellationToken);
        RunEnd end = await RunCommand.RunToEndAsync(new RunRequest(project, new RunOptions { Workers = 3, Verbose = verbose }, crash), cancellationToken);
        (RunReport report, StatusModel status) = (end.Report, end.Status);
        List<string> log = await LogAsync("--format=%h %s", cancellationToken);
        List<string> landed = [.. (await LogAsync("--format=%(trailers:key=Drover-Task,valueonly,separator=%x2C)", cancellationToken)).Where(l => l.Length > 0)];
        string? fault = Fault(status, landed);
        if (json)
            _caller.Output.Json(new DemoModel(_folder, crash, status.Tasks.Count, landed.Count, log, fault is null ? report.ExitCode : ExitCodes.FailedWork), CliJson.Default.DemoModel);
        else
            Show(project, end, log, crash);
        return fault is null ? report.ExitCode : throw new DroverException(ErrorCode.Failed, $"the demo's promise is broken: {fault}; look into {_folder}");
    }

    private async Task<Project> PrepareAsync(CancellationToken cancellationToken)
    {
        File.WriteAllText(Path.Combine(_folder, "README.md"), "# Tea shop\n\nMade by `drover demo`.\n");
        File.WriteAllText(Path.Combine(_folder, "check.sh"), DemoContent.Check);
        foreach (string[] arguments in (string[][])[
            ["init", "--quiet", "--initial-branch", DemoContent.Branch, "--template="],
            ["config", "user.name", "Drover Demo"],
            ["config", "user.email", "demo@example.invalid"],
            ["add", "--all"],
            ["commit", "--quiet", "--message", "Begin the tea shop"]])
            await _git.RunAsync(new GitScope { Directory = _folder }, arguments, cancellationToken);
        await InitCommand.InitializeAsync(_caller, null, null, DemoContent.TestCommand,
            new Dictionary<string, string> { ["agent.type"] = FakeAgent.TypeName }, cancellationToken);
        Project project = Project.Open(_caller, databaseOption: null);
        await project.ChangeAsync(tx =>
        {
            DemoContent.AddTo(tx.Session, project.Id);
            return true;
        }, cancellationToken);
        return project;
    }

    /// <summary>Starts a run in a process of its own and kills it when some tasks have landed and others are being worked on.</summary>
    private async Task CrashAsync(Project project, CancellationToken cancellationToken)
    {
        KeeperCommand program = KeeperCommand.Default;
        var start = new ProcessStartInfo(program.FileName, [.. program.Arguments, "run", "--workers", "3"])
        {
            WorkingDirectory = _folder,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process child = Process.Start(start) ?? throw new DroverException(ErrorCode.External, $"{program.FileName} cannot be started");
        Task<string> output = child.StandardOutput.ReadToEndAsync(cancellationToken);
        Task echo = EchoAsync(child.StandardError, cancellationToken);
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(20), TimeProvider.System);
        IReadOnlyDictionary<string, int> counts;
        do
        {
            if (child.HasExited)
                throw new DroverException(ErrorCode.Failed, $"the run ended with exit code {child.ExitCode} before it could be killed: look into {_folder}");
            await timer.WaitForNextTickAsync(cancellationToken);
            counts = await project.ReadAsync(db => BacklogQueries.Counts(db, project.Id), cancellationToken);
        }
        while (counts["completed"] < 2 || counts["in_progress"] < 1);
        child.Kill();
        await child.WaitForExitAsync(cancellationToken);
        await Task.WhenAll(output, echo);
        _caller.Output.Say(($"SIGKILL to the run (pid {child.Id}): {StatusCommand.OneLine(counts)}", Colour.Red));
        _caller.Output.Say(("$ drover resume", Colour.Bold));
    }

    private async Task EchoAsync(StreamReader lines, CancellationToken cancellationToken)
    {
        while (await lines.ReadLineAsync(cancellationToken) is { } line)
            _caller.Output.Say(line);
    }

    private async Task<List<string>> LogAsync(string format, CancellationToken cancellationToken) =>
        [.. (await _git.RunAsync(new GitScope { Directory = _folder }, ["log", "--first-parent", format, DemoContent.Branch], cancellationToken)).Text.Split('\n')];

    /// <summary>What is wrong with the result by git's own account; null when every completed task landed exactly once and nothing else did.</summary>
    private static string? Fault(StatusModel status, List<string> landed)
    {
        foreach (StatusTask task in status.Tasks)
        {
            int times = landed.Count(l => l == task.Id);
            if (times != (task.Status == "completed" ? 1 : 0))
                return $"{task.Id} is {task.Status} and landed {times} times";
        }
        return landed.FirstOrDefault(l => status.Tasks.All(t => t.Id != l)) is { } stranger ? $"'{stranger}' landed and is no task" : null;
    }

    private void Show(Project project, RunEnd end, List<string> log, bool crash)
    {
        Output output = _caller.Output;
        RunCommand.Show(output, end, json: false);
        output.Line("");
        output.Line(($"$ git log --first-parent --oneline {StatusStyle.Branch(project.Settings.Target ?? DemoContent.Branch)}", Colour.Bold));
        foreach (string line in log)
            output.Line(line);
        output.Line("");
        if (end.Report.Outcome == RunOutcome.Finished)
            output.Line(($"{end.Status.Tasks.Count} tasks, {end.Status.Tasks.Count} landings, each exactly once{(crash ? ", across the kill" : "")}", Colour.Green));
        output.Line("look around: ", ($"cd {_folder}", Colour.Cyan), " and `drover status --tree`");
    }

    /// <summary>The environment without anything that would change what the demo shows; a null marks what is taken away.</summary>
    private static Dictionary<string, string?> Clean(IReadOnlyDictionary<string, string?> environment)
    {
        var clean = new Dictionary<string, string?>(StringComparer.Ordinal);
        foreach ((string name, string? value) in environment)
        {
            bool leads = (name.StartsWith("DROVER_", StringComparison.Ordinal) && name != "DROVER_SQLITE") || name.StartsWith("DBOS_", StringComparison.Ordinal)
                || name.StartsWith("GIT_", StringComparison.Ordinal);
            clean[name] = leads ? null : value;
        }
        clean["GIT_CONFIG_GLOBAL"] = "/dev/null";
        return clean;
    }
}
