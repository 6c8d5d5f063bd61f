using System.CommandLine;
using Drover.Orchestrator.Backlog;

namespace Drover.Cli.Commands;

/// <summary><c>drover retry</c>.</summary>
internal static class RetryCommand
{
    public static Command Create(Caller caller)
    {
        Argument<string> task = GlobalOptions.Task();
        var force = new Option<bool>("--force") { Description = "Allow the whole number of attempts again, not only one more." };
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("retry", "Open a failed or cancelled task again, or end the waiting time of one that failed before.") { task, force, json };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            Project project = Project.Open(caller, parsed);
            StatusTask shown = await project.ChangeAsync(tx =>
            {
                TaskRow row = Board.Retry(tx.Session, project.Id, parsed.GetRequiredValue(task), parsed.GetValue(force), project.Settings.MaxAttempts);
                return BacklogQueries.Task(tx.Session, project.Id, row.Id);
            }, cancellationToken);
            if (parsed.GetValue(json))
                caller.Output.Json(shown, BacklogJson.Default.StatusTask);
            else
                caller.Output.Line($"{shown.Id} is {shown.Status}: {shown.Title}");
            return ExitCodes.Done;
        });
        return command;
    }
}
