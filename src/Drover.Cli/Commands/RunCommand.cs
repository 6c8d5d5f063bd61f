using System.CommandLine;
using System.Globalization;
using Drover.Cli.Terminal;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.Runs;

namespace Drover.Cli.Commands;

/// <summary><c>drover run</c> and <c>drover resume</c>: the same flags and the same loop; resume says first what it found.</summary>
internal sealed class RunCommand
{
    private readonly Option<string?> _workers = new("--workers", "-w") { Description = "How many tasks are worked on at once. Default: DROVER_WORKERS, then the settings (3).", HelpName = "n" };
    private readonly Option<string?> _epic = new("--epic") { Description = "Only this epic's tasks. Without it `run` works on all, and `resume` on those of the run that it continues.", HelpName = "epic" };
    private readonly Option<bool> _dryRun = new("--dry-run") { Description = "Check everything and show what would run; change nothing." };
    private readonly Option<bool?> _continueOnFailure = new("--continue-on-failure") { Description = "Whether to go on with other tasks when one has failed for good; alone it means true. Default: true, or as the unfinished run was started.", HelpName = "true|false" };
    private readonly Option<string?> _maxAttempts = new("--max-attempts") { Description = "How many attempts a task gets. Default: the settings (3).", HelpName = "n" };
    private readonly Option<string?> _target = new("--target") { Description = "The branch on which finished work lands. Default: the settings.", HelpName = "branch" };
    private readonly Option<bool> _json = GlobalOptions.Json();
    private readonly Caller _caller;
    private readonly bool _resume;

    private RunCommand(Caller caller, bool resume) => (_caller, _resume) = (caller, resume);

    public static Command CreateRun(Caller caller) => new RunCommand(caller, resume: false).Create("run", "Work on the backlog until nothing can run any more.");

    public static Command CreateResume(Caller caller) => new RunCommand(caller, resume: true).Create("resume", "Say what an interrupted run left, and continue it.");

    private Command Create(string name, string description)
    {
        var command = new Command(name, description) { _workers, _epic, _dryRun, _continueOnFailure, _maxAttempts, _target, _json };
        command.SetAction(RunAsync);
        return command;
    }

    private async Task<int> RunAsync(ParseResult parsed, CancellationToken cancellationToken)
    {
        Project project = Project.Open(_caller, parsed, new Dictionary<string, string?>
        {
            ["--workers"] = parsed.GetValue(_workers),
            ["--max-attempts"] = parsed.GetValue(_maxAttempts),
            ["--target"] = parsed.GetValue(_target),
        });
        var given = new RunOptions
        {
            Epic = parsed.GetValue(_epic),
            // `run` means what it says on its own; only `resume` keeps the scope of the run that it continues.
            AllEpics = !_resume && parsed.GetValue(_epic) is null,
            Workers = parsed.GetValue(_workers) is null ? null : project.Settings.Workers,
            MaxAttempts = parsed.GetValue(_maxAttempts) is null ? null : project.Settings.MaxAttempts,
            ContinueOnFailure = parsed.GetValue(_continueOnFailure),
            Verbose = parsed.GetValue(GlobalOptions.Verbose),
        };
        if (parsed.GetValue(_target) is { } target)
            given = given with { Target = target.StartsWith("refs/heads/", StringComparison.Ordinal) ? target : "refs/heads/" + target };
        if (parsed.GetValue(_dryRun))
            return await PlanAsync(project, given, parsed.GetValue(_json), cancellationToken);
        await RunChecks.CheckRowsAsync(project, given.Epic, cancellationToken);
        string? found = _resume ? await FoundAsync(project, cancellationToken) : null;
        return await ExecuteAsync(new RunRequest(project, given, _resume, found), parsed.GetValue(_json), cancellationToken);
    }

    private static async Task<int> ExecuteAsync(RunRequest request, bool json, CancellationToken cancellationToken)
    {
        RunEnd end = await RunToEndAsync(request, cancellationToken);
        Show(request.Project.Caller.Output, end, json);
        return end.Report.ExitCode;
    }

    /// <summary>Runs to the end, with progress on stderr.</summary>
    public static async Task<RunEnd> RunToEndAsync(RunRequest request, CancellationToken cancellationToken)
    {
        Output output = request.Project.Caller.Output;
        await using RunSession session = await RunSession.StartAsync(request, cancellationToken);
        if (request.Found is { } found)
            output.Say(found);
        foreach (string line in session.Opening())
            output.Say(line);
        using var interrupts = new Interrupts(session, request.Project.Caller);
        bool verbose = request.Given.Verbose == true;
        try
        {
            if (output.CanRedraw)
                await LiveProgress.ShowAsync(session, output, verbose, cancellationToken);
            else
                await LineProgress.ShowAsync(session, output, verbose, cancellationToken);
        }
        catch (IOException)
        {
            // The terminal is gone. The signal that came with it decides what becomes of the run, not the lost display.
        }
        return await session.CompletionAsync();
    }

    /// <summary>Prints the report on stdout.</summary>
    public static void Show(Output output, RunEnd end, bool json)
    {
        (RunReport report, StatusModel status) = (end.Report, end.Status);
        string outcome = report.Outcome == RunOutcome.FinishedWithFailures ? "finished-with-failures" : report.Outcome.ToString().ToLowerInvariant();
        if (json)
        {
            output.Json(new RunModel(report.RunId, outcome, report.ExitCode, StatusStyle.Branch(status.Target ?? ""), end.Epic, status.Counts, status.Tasks), CliJson.Default.RunModel);
            return;
        }
        foreach (StatusTask task in status.Tasks)
        {
            string tail = task.Landed is { } oid ? $"  {oid[..Math.Min(10, oid.Length)]}" : task.Reason is { } reason ? $"  {reason}" : "";
            output.Line((StatusStyle.Icon(task.Status), StatusStyle.Of(task.Status)), $" {task.Id} {task.Title} ", ($"[{task.Status}]", StatusStyle.Of(task.Status)), (tail, Colour.Dim));
        }
        output.Line(StatusStyle.Bar(status.Counts["completed"], status.Tasks.Count - status.Counts["cancelled"], 40));
        output.Line(report.Outcome switch
        {
            RunOutcome.Finished => ($"finished: {Landed(end)}", Colour.Green),
            RunOutcome.Interrupted => ("interrupted: `drover resume` continues", Colour.Yellow),
            RunOutcome.Stalled => ("stalled: a person must decide; see `drover info <task>` and `drover resolve`", Colour.Yellow),
            _ => ("finished with failures: see `drover info <task>`, then `drover retry <task>`", Colour.Red),
        });
    }

    private static string Landed(RunEnd end)
    {
        string target = StatusStyle.Branch(end.Status.Target ?? "");
        if (end.Epic is null)
            return $"everything is on {target}";
        string rest = end.Outside == 0 ? "nothing else remains" : string.Create(CultureInfo.InvariantCulture, $"{end.Outside} task(s) outside it remain: `drover run` works on all");
        return $"every task of epic {end.Epic} is on {target}; {rest}";
    }

    private async Task<int> PlanAsync(Project project, RunOptions given, bool json, CancellationToken cancellationToken)
    {
        string target = await RunChecks.CheckAllAsync(project, given, cancellationToken);
        PlanModel plan = await project.ReadAsync(db =>
        {
            RunRow? active = Board.ActiveRun(db, project.Id);
            string? epic = given.AllEpics ? null : given.Epic ?? active?.Epic;
            Readiness readiness = Readiness.Load(db, project.Id, epic);
            HashSet<string> ready = [.. readiness.Runnable()];
            IEnumerable<PlanWaits> waiting = BacklogQueries.Status(db, project.Id, null, epic).Tasks
                .Where(t => !ready.Contains(t.Id) && t.Status is not ("completed" or "cancelled"))
                .Select(t => new PlanWaits(t.Id, t.Status, t.Reason));
            return new PlanModel(StatusStyle.Branch(target), given.Workers ?? active?.Workers ?? project.Settings.Workers, project.Settings.AgentType,
                project.Settings.TestCommand, epic, [.. readiness.Runnable()], [.. waiting]);
        }, cancellationToken);
        if (json)
        {
            _caller.Output.Json(plan, CliJson.Default.PlanModel);
            return ExitCodes.Done;
        }
        _caller.Output.Line(string.Create(CultureInfo.InvariantCulture, $"would run with {plan.Workers} worker(s), agent {plan.Agent}, landing on {plan.Target}{(plan.Epic is null ? "" : $" (epic {plan.Epic} only)")}"));
        foreach (string id in plan.Ready)
            _caller.Output.Line(("ready    ", Colour.Green), id);
        foreach (PlanWaits one in plan.Waiting)
            _caller.Output.Line(("waits    ", Colour.Dim), $"{one.Task} [{one.Status}]", one.Reason is null ? "" : $"  {one.Reason}");
        return ExitCodes.Done;
    }

    private static async Task<string> FoundAsync(Project project, CancellationToken cancellationToken)
    {
        (RunRow? run, IReadOnlyDictionary<string, int> counts) = await project.ReadAsync(db =>
        {
            RunRow? active = Board.ActiveRun(db, project.Id);
            return (active, BacklogQueries.Counts(db, project.Id, active?.Epic));
        }, cancellationToken);
        return run is null ? "found no unfinished run; starting a new one"
            : $"found the unfinished run {run.Id}{(run.Epic is null ? "" : $" (epic {run.Epic} only)")}: {StatusCommand.OneLine(counts)}";
    }
}
