using System.CommandLine;
using System.Globalization;
using Drover.Cli.Terminal;
using Drover.Orchestrator.Backlog;
using Drover.Workflows;

namespace Drover.Cli.Commands;

/// <summary><c>drover add</c>.</summary>
internal static class AddCommand
{
    public static Command Create(Caller caller)
    {
        var title = new Argument<string>("title") { Description = "What is to be done. `task-x.3 Title` adds sub-task 3 of task-x." };
        var description = new Option<string>("--description", "-d") { Description = "Everything the agent should know.", HelpName = "text", DefaultValueFactory = _ => "" };
        var epic = new Option<string?>("--epic", "-e") { Description = "The epic it belongs to.", HelpName = "epic" };
        var parent = new Option<string?>("--parent", "-P") { Description = "The task of which it is a sub-task.", HelpName = "task" };
        var priority = new Option<string>("--priority", "-p") { Description = "A whole number; higher is sooner.", HelpName = "n", DefaultValueFactory = _ => "0" };
        var blockedBy = new Option<string[]>("--blocked-by") { Description = "Tasks that must be completed before; repeat it, or separate ids by commas.", HelpName = "task" };
        var testCommand = new Option<string?>("--test-command") { Description = "The command that must succeed on the tree that lands, instead of the project's.", HelpName = "command" };
        var skip = new Option<bool>("--skip-validation") { Description = "Do not judge title and description." };
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("add", "Add a task to the backlog.") { title, description, epic, parent, priority, blockedBy, testCommand, skip, json };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            var task = new NewTask
            {
                Title = parsed.GetRequiredValue(title),
                Description = parsed.GetRequiredValue(description).ReplaceLineEndings("\n"),
                Epic = parsed.GetValue(epic),
                Parent = parsed.GetValue(parent),
                Priority = Priority(parsed.GetRequiredValue(priority)),
                BlockedBy = Ids(parsed.GetValue(blockedBy) ?? []),
                TestCommand = parsed.GetValue(testCommand),
            };
            if (task.TestCommand is { } test)
                Orchestrator.Gates.GateCommand.Parse(test);
            Project project = Project.Open(caller, parsed);
            IReadOnlyList<QualityRemark> remarks = parsed.GetValue(skip) || string.IsNullOrWhiteSpace(task.Title) ? [] : TaskQuality.Check(task.Title, task.Description);
            if (remarks.FirstOrDefault(r => r.Refused) is { } refused)
                throw new DroverException(ErrorCode.InvalidInput, $"{refused.Problem}: {refused.Suggestion}");

            StatusTask added = await project.ChangeAsync(tx =>
                BacklogQueries.Task(tx.Session, project.Id, Board.AddTask(tx.Session, project.Id, task).Id), cancellationToken);
            if (parsed.GetValue(json))
                caller.Output.Json(added, BacklogJson.Default.StatusTask);
            else
                caller.Output.Line($"Created task {added.Id}: {added.Title}");
            foreach (QualityRemark remark in remarks)
                caller.Output.Say(($"hint: {remark.Problem}: {remark.Suggestion}", Colour.Dim));
            return ExitCodes.Done;
        });
        return command;
    }

    private static int Priority(string text) =>
        int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int value) && value is >= -1_000_000 and <= 1_000_000 ? value
            : throw new DroverException(ErrorCode.InvalidInput, $"--priority: '{TextRules.Printable(text)}' is not a whole number from -1000000 to 1000000 (higher is sooner)");

    private static List<string> Ids(string[] given) =>
        [.. given.SelectMany(g => g.Split(',', StringSplitOptions.TrimEntries)).Distinct(StringComparer.Ordinal)];
}
