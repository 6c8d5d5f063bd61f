using System.CommandLine;
using System.Globalization;
using Drover.Cli.Terminal;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.CodingAgents;
using Drover.Workflows;

namespace Drover.Cli.Commands;

/// <summary><c>drover status</c>. Its plain forms use neither hosting nor the rich terminal library: they are asked by prompts and scripts.</summary>
internal static class StatusCommand
{
    private const int BarCells = 40;

    private enum Form
    {
        Summary,
        Tree,
        OneLine,
        Json,
        JsonTree,
    }

    public static Command Create(Caller caller)
    {
        var tree = new Option<bool>("--tree", "-t") { Description = "Epics, tasks, sub-tasks and what they wait for." };
        var oneLine = new Option<bool>("--oneline") { Description = "Counts on one line, for prompts." };
        var watch = new Option<bool>("--watch", "-w") { Description = "Show it again whenever the backlog changes, until Ctrl+C." };
        var epic = new Option<string?>("--epic") { Description = "Only this epic's tasks.", HelpName = "epic" };
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("status", "Show how the backlog stands.") { tree, oneLine, watch, epic, json };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            if (parsed.GetValue(oneLine) && (parsed.GetValue(tree) || parsed.GetValue(json)))
                throw new DroverException(ErrorCode.InvalidInput, "--oneline cannot be combined with --tree or --json: leave one of them out");
            Form form = (parsed.GetValue(json), parsed.GetValue(tree), parsed.GetValue(oneLine)) switch
            {
                (true, true, _) => Form.JsonTree,
                (true, false, _) => Form.Json,
                (_, true, _) => Form.Tree,
                (_, _, true) => Form.OneLine,
                _ => Form.Summary,
            };
            Project project = Project.Open(caller, parsed);
            string? only = parsed.GetValue(epic);
            if (parsed.GetValue(watch))
                return await WatchAsync(project, form, only, cancellationToken);
            await ShowAsync(project, form, only, cancellationToken);
            return ExitCodes.Done;
        });
        return command;
    }

    /// <summary><c>drover status --oneline</c> without further options.</summary>
    public static async Task<int> OneLineAsync(Caller caller)
    {
        await ShowAsync(Project.Open(caller, databaseOption: null), Form.OneLine, null, CancellationToken.None);
        return ExitCodes.Done;
    }

    private static async Task ShowAsync(Project project, Form form, string? epic, CancellationToken cancellationToken)
    {
        Output output = project.Caller.Output;
        switch (form)
        {
            case Form.OneLine:
                output.Line(OneLine(await project.ReadAsync(db => Checked(db, project, epic, BacklogQueries.Counts), cancellationToken)));
                break;
            case Form.Json:
                output.Json(await StatusAsync(project, epic, cancellationToken), BacklogJson.Default.StatusModel);
                break;
            case Form.JsonTree:
                output.Json(await project.ReadAsync(db => Checked(db, project, epic, BacklogQueries.Tree), cancellationToken), BacklogJson.Default.IReadOnlyListTreeEpic);
                break;
            case Form.Tree:
                foreach (TreeEpic group in await project.ReadAsync(db => Checked(db, project, epic, BacklogQueries.Tree), cancellationToken))
                    ShowTree(output, group);
                break;
            default:
                ShowSummary(output, await StatusAsync(project, epic, cancellationToken), await project.ReadAsync(db => RunLine(db, project), cancellationToken));
                break;
        }
    }

    private static Task<StatusModel> StatusAsync(Project project, string? epic, CancellationToken cancellationToken) => project.ReadAsync(db =>
    {
        if (epic is not null)
            Board.GetEpic(db, project.Id, epic);
        string? target = Board.ActiveRun(db, project.Id)?.Target ?? project.Settings.Target;
        return BacklogQueries.Status(db, project.Id, target, epic);
    }, cancellationToken);

    private static T Checked<T>(Workflows.Storage.SqlSession db, Project project, string? epic, Func<Workflows.Storage.SqlSession, string, string?, T> read)
    {
        if (epic is not null)
            Board.GetEpic(db, project.Id, epic);
        return read(db, project.Id, epic);
    }

    /// <summary>The counts on one line: what runs, what can run, what is done, and whatever else there is.</summary>
    internal static string OneLine(IReadOnlyDictionary<string, int> counts)
    {
        int running = counts["claimed"] + counts["in_progress"];
        string line = string.Create(CultureInfo.InvariantCulture, $"{running} running, {counts["ready"]} queued, {counts["completed"]} completed, {counts["blocked"]} blocked");
        foreach (string word in (string[])["paused", "failed", "unreachable", "cancelled"])
        {
            if (counts[word] > 0)
                line += string.Create(CultureInfo.InvariantCulture, $", {counts[word]} {word}");
        }
        return line;
    }

    // Whether anybody works on an unfinished run is asked of the process that holds it, not of the rows that it left.
    private static string? RunLine(Workflows.Storage.SqlSession db, Project project)
    {
        if (Board.ActiveRun(db, project.Id) is not { } run)
            return null;
        string line = run.Epic is null ? run.Id : $"{run.Id} (epic {run.Epic} only)";
        if (run.Draining || run.Outcome == "interrupted")
            line += ", interrupted";
        ProcessIdentity? holder = db.First("SELECT boot_id, pid_namespace, pid, start_ticks FROM {d}executors WHERE id = @id AND taken_over_by IS NULL",
            r => new ProcessIdentity(r.GetString(0), r.GetString(1), (int)r.GetInt64(2), r.GetInt64(3)), ("@id", run.ExecutorId));
        return line + (holder?.Look() ?? ProcessPresence.Dead) switch
        {
            ProcessPresence.Running => $": held by pid {holder!.Pid}",
            ProcessPresence.Stopped => $": held by pid {holder!.Pid}, stopped (`kill -CONT {holder.Pid}` lets it go on)",
            ProcessPresence.Unknown => ": held by a process of another container, which cannot be seen from here",
            _ => ": nobody works on it: `drover resume` continues it",
        };
    }

    private static void ShowSummary(Output output, StatusModel status, string? run)
    {
        int total = status.Tasks.Count, wanted = total - status.Counts["cancelled"], completed = status.Counts["completed"];
        output.Line(string.Create(CultureInfo.InvariantCulture, $"Total        {total}"));
        foreach ((string word, int count) in status.Counts)
            output.Line((word.PadRight(12).Replace('_', ' '), count > 0 ? StatusStyle.Of(word) : Colour.Dim), string.Create(CultureInfo.InvariantCulture, $" {count}"));
        output.Line(StatusStyle.Bar(completed, wanted, BarCells));
        if (status.Target is { } target)
            output.Line("Target       ", StatusStyle.Branch(target));
        if (run is not null)
            output.Line("Run          ", run);
        foreach (StatusTask task in status.Tasks)
        {
            if (task.Status is "paused" or "failed" or "in_progress" or "claimed" or "unreachable")
                output.Line((StatusStyle.Icon(task.Status), StatusStyle.Of(task.Status)), $" {task.Id} {task.Title}", (Because(task.Reason), Colour.Dim));
        }
    }

    private static void ShowTree(Output output, TreeEpic epic)
    {
        int all = epic.Tasks.Count, done = epic.Tasks.Count(t => t.Status == "completed");
        output.Line((epic.Id ?? "", Colour.Cyan), epic.Id is null ? "(no epic)" : " " + epic.Title, (string.Create(CultureInfo.InvariantCulture, $"  {done}/{all}"), Colour.Dim));
        for (int i = 0; i < all; i++)
            ShowNode(output, epic.Tasks[i], "", i == all - 1);
    }

    private static void ShowNode(Output output, TreeNode node, string indent, bool last)
    {
        string reason = node.Reason ?? (node.BlockedBy.Count > 0 && node.Status != "completed" ? "after " + string.Join(", ", node.BlockedBy) : "");
        output.Line(indent + (last ? "└─ " : "├─ "), (StatusStyle.Icon(node.Status), StatusStyle.Of(node.Status)), $" {node.Id} {node.Title} ",
            ($"[{node.Status}]", StatusStyle.Of(node.Status)), (Because(reason), Colour.Dim));
        for (int i = 0; i < node.Children.Count; i++)
            ShowNode(output, node.Children[i], indent + (last ? "   " : "│  "), i == node.Children.Count - 1);
    }

    private static string Because(string? reason) => string.IsNullOrEmpty(reason) ? "" : $"  {reason}";

    private static async Task<int> WatchAsync(Project project, Form form, string? epic, CancellationToken cancellationToken)
    {
        Output output = project.Caller.Output;
        long? seen = null;
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(500), TimeProvider.System);
        do
        {
            // Facts are rows: the newest event's number says whether anything changed.
            long now = await project.ReadAsync(db => db.Number("SELECT MAX(seq) FROM {d}task_events WHERE project = @project", ("@project", project.Id)), cancellationToken);
            if (now == seen)
                continue;
            seen = now;
            if (output.DataIsTerminal && form is not (Form.Json or Form.JsonTree or Form.OneLine))
                output.ClearScreen();
            await ShowAsync(project, form, epic, cancellationToken);
            output.Flush();
        }
        while (await timer.WaitForNextTickAsync(cancellationToken));
        return ExitCodes.Done;
    }
}
