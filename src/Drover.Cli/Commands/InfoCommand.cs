using System.CommandLine;
using System.Globalization;
using Drover.Cli.Terminal;
using Drover.Orchestrator.Backlog;

namespace Drover.Cli.Commands;

/// <summary><c>drover info</c>.</summary>
internal static class InfoCommand
{
    public static Command Create(Caller caller)
    {
        Argument<string> task = GlobalOptions.Task();
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("info", "Show everything about one task.") { task, json };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            Project project = Project.Open(caller, parsed);
            InfoModel info = await project.ReadAsync(db => BacklogQueries.Info(db, project.Id, parsed.GetRequiredValue(task)), cancellationToken);
            if (parsed.GetValue(json))
                caller.Output.Json(info, BacklogJson.Default.InfoModel);
            else
                Show(caller.Output, info);
            return ExitCodes.Done;
        });
        return command;
    }

    private static void Show(Output output, InfoModel info)
    {
        output.Line((info.Id, Colour.Cyan), " ", (info.Title, Colour.Bold));
        Field(output, "status", info.Status + (info.Reason is null ? "" : $" ({info.Reason})"));
        Field(output, "outcome", info.Outcome is null ? null : info.Outcome + (info.NoOpReason is null ? "" : $": {info.NoOpReason}"));
        Field(output, "question", info.Question);
        if (info.Question is not null)
            Field(output, "answer", $"`drover resolve {info.Id} --accept`, `--continue [--note <text>]` or `--abandon`");
        Field(output, "landed", info.Landed is null ? null : $"{info.Landed} at {info.LandedAt}");
        Field(output, "last error", info.LastError);
        Field(output, "waits until", info.WaitsUntil);
        Field(output, "priority", info.Priority.ToString(CultureInfo.InvariantCulture));
        Field(output, "epic", info.Epic is null ? null : $"{info.Epic} {info.EpicTitle}");
        Field(output, "parent", info.Parent);
        Field(output, "test command", info.TestCommand);
        Field(output, "max attempts", info.MaxAttempts?.ToString(CultureInfo.InvariantCulture));
        Field(output, "created", info.CreatedAt);
        Field(output, "updated", info.UpdatedAt);
        Field(output, "worktree", info.Worktree);
        Field(output, "log", info.LogPath);
        Links(output, "blocked by", info.BlockedBy);
        Links(output, "blocks", info.Blocks);
        Links(output, "sub-tasks", info.SubTasks);
        if (info.Description.Length > 0)
        {
            output.Line(("description", Colour.Dim));
            foreach (string line in info.Description.Split('\n'))
                output.Line("  " + line);
        }
        foreach (AttemptModel attempt in info.Attempts)
            Show(output, attempt);
        foreach (LandingModel landing in info.Landings)
            output.Line(("landing", Colour.Dim), $" of attempt {landing.Attempt}: {landing.State} on {StatusStyle.Branch(landing.Target)}",
                landing.Reason is null ? "" : $" ({landing.Reason} {string.Join(", ", landing.Paths)})");
        if (info.Events.Count > 0)
            output.Line(("events", Colour.Dim));
        foreach (EventModel one in info.Events)
            output.Line($"  {one.At} {one.Type} ", (one.Data.GetRawText(), Colour.Dim));
    }

    private static void Show(Output output, AttemptModel attempt)
    {
        string state = attempt.Outcome ?? (attempt.Phase is null ? attempt.State : $"{attempt.State}: {attempt.Phase}");
        output.Line(("attempt", Colour.Dim), string.Create(CultureInfo.InvariantCulture, $" {attempt.Number}: {state}, {attempt.Turns} turn(s)"),
            attempt.Agent is null ? "" : $", agent {attempt.Agent}", attempt.Error is null ? "" : $", {attempt.Error.ReplaceLineEndings(" ")}");
    }

    private static void Field(Output output, string name, string? value)
    {
        if (!string.IsNullOrEmpty(value))
            output.Line((name.PadRight(13), Colour.Dim), value.ReplaceLineEndings("\n" + new string(' ', 13)));
    }

    private static void Links(Output output, string name, IReadOnlyList<TaskLink> links)
    {
        foreach (TaskLink link in links)
            output.Line((name.PadRight(13), Colour.Dim), (StatusStyle.Icon(link.Status), StatusStyle.Of(link.Status)), $" {link.Id} {link.Title} [{link.Status}]");
    }
}
