using System.CommandLine;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.Runs;
using Drover.Workflows;

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
            await using WorkflowClient client = await project.ConnectAsync();
            string id = parsed.GetRequiredValue(task);
            await TaskControl.RetryAsync(client, project.Id, id, parsed.GetValue(force), project.Settings.MaxAttempts, cancellationToken);
            StatusTask shown = await client.ReadAsync(db => BacklogQueries.Task(db, project.Id, id), cancellationToken);
            if (parsed.GetValue(json))
                caller.Output.Json(shown, BacklogJson.Default.StatusTask);
            else
                caller.Output.Line($"{shown.Id} is {shown.Status}: {shown.Title}");
            return ExitCodes.Done;
        });
        return command;
    }
}
