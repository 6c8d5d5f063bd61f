using System.CommandLine;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.Runs;
using Drover.Workflows;

namespace Drover.Cli.Commands;

/// <summary><c>drover cancel</c>: works on a live run through the database.</summary>
internal static class CancelCommand
{
    // How long a change that is already on its way to the target is waited for.
    private static readonly TimeSpan LandingWait = TimeSpan.FromSeconds(30);

    public static Command Create(Caller caller)
    {
        Argument<string> task = GlobalOptions.Task();
        var reason = new Option<string?>("--reason") { Description = "Why, for the record.", HelpName = "text" };
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("cancel", "Cancel a task; a running agent is stopped.") { task, reason, json };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            string id = parsed.GetRequiredValue(task);
            if (parsed.GetValue(reason) is { } text)
                TextRules.Lines("the reason", text, TextRules.MaxNote);
            Project project = Project.Open(caller, parsed);
            await using WorkflowClient client = await project.ConnectAsync();
            CancelAnswer answer = await TaskControl.CancelAsync(client, project.Id, id, parsed.GetValue(reason), cancellationToken);
            if (answer.Result == CancelResult.Landing)
            {
                caller.Output.Say($"{id} is landing: waiting for the result");
                answer = await LandedAsync(client, project.Id, id, parsed.GetValue(reason), cancellationToken);
            }
            StatusTask shown = await client.ReadAsync(db => BacklogQueries.Task(db, project.Id, id), cancellationToken);
            if (parsed.GetValue(json))
                caller.Output.Json(shown, BacklogJson.Default.StatusTask);
            else
                caller.Output.Line(answer.Result == CancelResult.AlreadyCancelled ? $"{id} was cancelled before" : $"Cancelled {id}: {shown.Title}");
            return ExitCodes.Done;
        });
        return command;
    }

    private static async Task<CancelAnswer> LandedAsync(WorkflowClient client, string project, string task, string? reason, CancellationToken cancellationToken)
    {
        long start = TimeProvider.System.GetTimestamp();
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(100), TimeProvider.System);
        while (await timer.WaitForNextTickAsync(cancellationToken))
        {
            CancelAnswer answer = await TaskControl.CancelAsync(client, project, task, reason, cancellationToken);
            if (answer.Result != CancelResult.Landing)
                return answer;
            if (TimeProvider.System.GetElapsedTime(start) > LandingWait)
                break;
        }
        throw new DroverException(ErrorCode.Timeout, $"{task} is landing and has no result after {LandingWait.TotalSeconds:0} s: when no run is alive, `drover resume` finishes it; then look at `drover info {task}`");
    }
}
