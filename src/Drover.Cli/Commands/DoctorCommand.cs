using System.CommandLine;
using Drover.Cli.Terminal;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.CodingAgents;
using Drover.Orchestrator.Git;
using Drover.Workflows;
using Drover.Workflows.Sqlite;

namespace Drover.Cli.Commands;

/// <summary><c>drover doctor</c>: looks at everything a run needs, changes nothing, and shows no environment values (rule L-04).</summary>
internal sealed class DoctorCommand
{
    private readonly List<DoctorCheck> _checks = [];
    private readonly Caller _caller;

    private DoctorCommand(Caller caller) => _caller = caller;

    public static Command Create(Caller caller)
    {
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("doctor", "Look whether everything a run needs is there.") { json };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var doctor = new DoctorCommand(caller);
            await doctor.LookAsync(parsed, cancellationToken);
            bool ok = doctor._checks.TrueForAll(c => c.State != "problem");
            if (parsed.GetValue(json))
                caller.Output.Json(new DoctorModel(ok, doctor._checks), CliJson.Default.DoctorModel);
            else
                doctor.Show();
            return ok ? ExitCodes.Done : ExitCodes.FailedWork;
        });
        return command;
    }

    private async Task LookAsync(ParseResult parsed, CancellationToken cancellationToken)
    {
        Add("drover", "ok", $"{CommandLine.Version} on {System.Runtime.InteropServices.RuntimeInformation.FrameworkDescription}");
        await TryAsync("sqlite", () =>
        {
            string version = NativeLibraryChoice.Version;
            string note = NativeLibraryChoice.HasWalResetRace ? "; below 3.51.3, commits go through the commit lock" : "";
            return Task.FromResult($"{version}, {NativeLibraryChoice.Source}{note}");
        });
        Repository? repository = null;
        await TryAsync("repository", async () =>
        {
            repository = await InitCommand.OpenAsync(_caller, _caller.Folder, cancellationToken);
            return repository.Root;
        });
        if (repository is not null)
        {
            await TryAsync("identity", () => Task.FromResult(repository.Identity() is { } who ? $"{who.Name} <{who.Email}>" : ""));
            if (repository.Hooks() is { Count: > 0 } hooks)
                Add("hooks", "warning", $"{string.Join(", ", hooks)}: Drover never runs them; put their checks into testCommand");
        }
        Project? project = null;
        await TryAsync("project", () =>
        {
            project = Project.Open(_caller, parsed);
            return Task.FromResult($"{project.Id} in {project.Root}");
        });
        if (project is null)
            return;
        await TryAsync("database", async () =>
        {
            int tasks = await project.ReadAsync(db => (int)db.Number("SELECT COUNT(*) FROM {d}tasks WHERE project = @project", ("@project", project.Id)), cancellationToken);
            return $"{project.Database.Path} ({project.Database.Source}), {tasks} task(s)";
        });
        if (repository is not null)
        {
            await TryAsync("target", async () =>
            {
                string target = await repository.DetectTargetAsync(project.Settings.Target, cancellationToken);
                await Preflight.CheckAsync(repository, target, cancellationToken);
                return StatusStyle.Branch(target);
            });
        }
        await TryAsync("agent", () =>
        {
            AgentCheck check = RunChecks.Agent(project.Settings);
            return Task.FromResult($"{project.Settings.AgentType}: {check.Path}{(check.Version is null ? "" : " " + check.Version)}");
        });
        await TryAsync("gate", () => Task.FromResult(project.Settings.TestCommand is { } command
            ? $"{command} ({RunChecks.Gate(command, project)})"
            : throw new DroverException(ErrorCode.InvalidInput, "there is no test command: `drover config set testCommand <command>`")));
        await TryAsync("run", () => RunAsync(project, cancellationToken));
        if (File.Exists(Path.Combine(project.Root, ".drover.toml")))
            Add(".drover.toml", "warning", "is not read; use `drover config set`");
    }

    private static async Task<string> RunAsync(Project project, CancellationToken cancellationToken)
    {
        RunRow? run = await project.ReadAsync(db => Board.ActiveRun(db, project.Id), cancellationToken);
        return run is null ? "no unfinished run" : $"{run.Id} is unfinished: `drover resume` continues it when no process holds it";
    }

    private async Task TryAsync(string name, Func<Task<string>> look)
    {
        try
        {
            Add(name, "ok", await look());
        }
        catch (DroverException e)
        {
            Add(name, "problem", e.Message);
        }
    }

    private void Add(string name, string state, string text) => _checks.Add(new DoctorCheck(name, state, text));

    private void Show()
    {
        foreach (DoctorCheck check in _checks)
        {
            Part sign = check.State switch
            {
                "ok" => ("✓ ", Colour.Green),
                "warning" => ("! ", Colour.Yellow),
                _ => ("✗ ", Colour.Red),
            };
            _caller.Output.Line(sign, check.Name.PadRight(12), check.Text);
        }
    }
}
