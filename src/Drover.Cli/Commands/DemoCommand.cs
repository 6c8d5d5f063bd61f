using System.CommandLine;
using Drover.Workflows;

namespace Drover.Cli.Commands;

/// <summary><c>drover demo</c>.</summary>
internal static class DemoCommand
{
    public static Command Create(Caller caller)
    {
        var crash = new Option<bool>("--crash") { Description = "Kill the run in the middle, resume it, and prove that nothing was done twice." };
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("demo", "Run a small backlog in a new git repository with a scripted agent; free, offline.") { crash, json };
        command.SetAction((_, _) => Task.FromException<int>(new DroverException(ErrorCode.Unavailable, "not yet")));
        return command;
    }
}
