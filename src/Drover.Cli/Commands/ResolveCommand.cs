using System.CommandLine;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.Runs;
using Drover.Workflows;

namespace Drover.Cli.Commands;

/// <summary><c>drover resolve</c>: a person's answer to a paused task.</summary>
internal static class ResolveCommand
{
    public static Command Create(Caller caller)
    {
        Argument<string> task = GlobalOptions.Task();
        var accept = new Option<bool>("--accept") { Description = "Land what waits." };
        var goOn = new Option<bool>("--continue") { Description = "The same attempt, one more turn of the agent." };
        var abandon = new Option<bool>("--abandon") { Description = "Give the task up; its work is kept under its ref." };
        var note = new Option<string?>("--note") { Description = "What the agent should know, with --continue.", HelpName = "text" };
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("resolve", "Answer a task that waits for a person.") { task, accept, goOn, abandon, note, json };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            Resolution resolution = (parsed.GetValue(accept), parsed.GetValue(goOn), parsed.GetValue(abandon)) switch
            {
                (true, false, false) => Resolution.Accept,
                (false, true, false) => Resolution.Continue,
                (false, false, true) => Resolution.Abandon,
                _ => throw new DroverException(ErrorCode.InvalidInput, "give exactly one of --accept, --continue and --abandon; `drover info <task>` shows the question"),
            };
            if (parsed.GetValue(note) is not null && resolution == Resolution.Accept)
                throw new DroverException(ErrorCode.InvalidInput, "--note says something to the agent, and --accept runs none: leave it out or use --continue");
            Project project = Project.Open(caller, parsed);
            await using WorkflowClient client = await project.ConnectAsync();
            string id = parsed.GetRequiredValue(task);
            await TaskControl.ResolveAsync(client, project.Id, id, resolution, parsed.GetValue(note), cancellationToken);
            StatusTask shown = await client.ReadAsync(db => BacklogQueries.Task(db, project.Id, id), cancellationToken);
            if (parsed.GetValue(json))
                caller.Output.Json(shown, BacklogJson.Default.StatusTask);
            else
                caller.Output.Line($"{shown.Id} is {shown.Status}: {shown.Title}");
            if (resolution != Resolution.Abandon)
                caller.Output.Say("a live run takes it up; otherwise `drover run`");
            return ExitCodes.Done;
        });
        return command;
    }
}
