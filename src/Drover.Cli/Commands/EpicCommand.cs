using System.CommandLine;
using System.Globalization;
using Drover.Cli.Terminal;
using Drover.Orchestrator.Backlog;

namespace Drover.Cli.Commands;

/// <summary><c>drover epic add|list</c>.</summary>
internal static class EpicCommand
{
    public static Command Create(Caller caller)
    {
        var command = new Command("epic", "Epics: named groups of tasks.") { CreateAdd(caller), CreateList(caller) };
        return command;
    }

    private static Command CreateAdd(Caller caller)
    {
        var title = new Argument<string>("title") { Description = "What the epic is about." };
        var description = new Option<string>("--description", "-d") { Description = "More about it.", HelpName = "text", DefaultValueFactory = _ => "" };
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("add", "Add an epic.") { title, description, json };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            Project project = Project.Open(caller, parsed);
            EpicModel epic = await project.ChangeAsync(tx =>
            {
                EpicRow row = Board.AddEpic(tx.Session, project.Id, parsed.GetRequiredValue(title), parsed.GetRequiredValue(description));
                return BacklogQueries.Epics(tx.Session, project.Id).Single(e => e.Id == row.Id);
            }, cancellationToken);
            if (parsed.GetValue(json))
                caller.Output.Json(epic, BacklogJson.Default.EpicModel);
            else
                caller.Output.Line($"Created epic {epic.Id}: {epic.Title}");
            return ExitCodes.Done;
        });
        return command;
    }

    private static Command CreateList(Caller caller)
    {
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("list", "List the epics with their tasks by status.") { json };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            Project project = Project.Open(caller, parsed);
            IReadOnlyList<EpicModel> epics = await project.ReadAsync(db => BacklogQueries.Epics(db, project.Id), cancellationToken);
            if (parsed.GetValue(json))
            {
                caller.Output.Json(epics, BacklogJson.Default.IReadOnlyListEpicModel);
                return ExitCodes.Done;
            }
            if (epics.Count == 0)
                caller.Output.Say("no epics yet: `drover epic add <title>`");
            foreach (EpicModel epic in epics)
            {
                int total = epic.Counts.Values.Sum();
                string progress = string.Create(CultureInfo.InvariantCulture, $"  {epic.Counts["completed"]}/{total} completed  ");
                caller.Output.Line((epic.Id, Colour.Cyan), progress, epic.Title);
            }
            return ExitCodes.Done;
        });
        return command;
    }
}
