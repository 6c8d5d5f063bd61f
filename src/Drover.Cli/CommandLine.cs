using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Parsing;
using System.Reflection;
using System.Text;
using Drover.Cli.Commands;
using Drover.Orchestrator.CodingAgents;
using Drover.Workflows;

namespace Drover.Cli;

/// <summary>The command tree, and how any command ends: one exit code, and at most one line for an error.</summary>
internal static class CommandLine
{
    /// <summary>Parses and runs; returns the process's exit code. Never throws.</summary>
    public static async Task<int> RunAsync(string[] args, Caller caller)
    {
        bool verbose = args.Contains("--verbose") || args.Contains("-v");
        int code = await GuardAsync(caller, verbose, async () =>
        {
            if (args is ["--version"])
            {
                caller.Output.Line("drover " + Version);
                return ExitCodes.Done;
            }
            // Asked by every shell prompt: building the command tree would take longer than the answer.
            if (args is ["status", "--oneline"])
                return await StatusCommand.OneLineAsync(caller);
            return await ParseAndRunAsync(args, caller);
        });
        // The last flush may find a closed pipe, too.
        return await GuardAsync(caller, verbose, () =>
        {
            caller.Output.Flush();
            return Task.FromResult(code);
        });
    }

    /// <summary>The program's version, without the commit.</summary>
    public static string Version =>
        typeof(CommandLine).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+')[0] ?? "unknown";

    /// <summary>Every command, option and argument; help, the reference page and the tests are made from it.</summary>
    public static RootCommand Create(Caller caller)
    {
        var root = new RootCommand("Drives a backlog of work to done with many coding agents in parallel. Nothing finished is lost or done twice.");
        root.Options.Clear();
        root.Directives.Clear();
        root.Add(new HelpOption("--help", "-h", "-?") { Description = "Show what a command does." });
        root.Add(new VersionOption("--version") { Description = "Print the version." });
        root.Add(GlobalOptions.Database);
        root.Add(GlobalOptions.Verbose);
        foreach (Command command in (Command[])[
            InitCommand.Create(caller), EpicCommand.Create(caller), AddCommand.Create(caller), RunCommand.CreateRun(caller), RunCommand.CreateResume(caller),
            StatusCommand.Create(caller), InfoCommand.Create(caller), CancelCommand.Create(caller), RetryCommand.Create(caller), ResolveCommand.Create(caller),
            ImportJsonlCommand.Create(caller), ConfigCommand.Create(caller), DoctorCommand.Create(caller), DemoCommand.Create(caller)])
            root.Add(command);
        return root;
    }

    private static async Task<int> ParseAndRunAsync(string[] args, Caller caller)
    {
        RootCommand root = Create(caller);
        if (args.Length == 0)
            args = ["--help"];
        // A title may begin with '@', which would otherwise name a file of arguments.
        ParseResult parsed = root.Parse(args, new ParserConfiguration { ResponseFileTokenReplacer = null });
        if (parsed.Errors.Count > 0)
            throw UsageError(parsed);
        return await parsed.InvokeAsync(new InvocationConfiguration
        {
            EnableDefaultExceptionHandler = false,
            // Interrupts are the commands' own matter.
            ProcessTerminationTimeout = null,
            Output = new HelpWriter(caller.Output),
        });
    }

    private static DroverException UsageError(ParseResult parsed)
    {
        var words = new List<string>();
        for (SymbolResult? at = parsed.CommandResult; at is CommandResult command; at = at.Parent)
            words.Insert(0, command.Command is RootCommand ? "drover" : command.Command.Name);
        ParseError error = parsed.Errors[0];
        // The parser complains about the first word it cannot place, and also about the sub-command it then misses.
        string message = error.Message.TrimEnd('.').ReplaceLineEndings(" ");
        if (parsed.UnmatchedTokens is [{ } word, ..])
        {
            string? near = Orchestrator.Backlog.TextRules.Nearest(word, word.StartsWith('-')
                ? parsed.CommandResult.Command.Options.Select(o => o.Name) : parsed.CommandResult.Command.Subcommands.Select(c => c.Name));
            string kind = word.StartsWith('-') ? "option" : parsed.CommandResult.Command.Subcommands.Count > 0 ? "command" : "argument";
            message = $"there is no {kind} '{Orchestrator.Backlog.TextRules.Printable(word)}'{(near is null ? "" : $" (did you mean {near}?)")}";
        }
        return new DroverException(ErrorCode.InvalidInput, $"{message}: see `{string.Join(' ', words)} --help`");
    }

    private static async Task<int> GuardAsync(Caller caller, bool verbose, Func<Task<int>> run)
    {
        try
        {
            return await run();
        }
        catch (DroverException e)
        {
            return Report(caller, e.Message, ExitCodes.Of(e.Code), null);
        }
        catch (OperationCanceledException)
        {
            return Report(caller, "interrupted", ExitCodes.Interrupted, null);
        }
        catch (IOException e) when (e.HResult == 32)
        {
            // EPIPE: the reader of our output has seen enough (`drover status | head`).
            return ExitCodes.Done;
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            return Report(caller, e.Message, ExitCodes.FailedWork, null);
        }
        catch (Exception e)
        {
            string hint = verbose ? "" : "; this is a defect, repeat the command with --verbose to see where";
            return Report(caller, $"{e.GetType().Name}: {e.Message}{hint}", ExitCodes.FailedWork, verbose ? e : null);
        }
    }

    private static int Report(Caller caller, string message, int code, Exception? detail)
    {
        caller.Output.Above = null;
        caller.Output.Say("drover: " + TerminalText.SanitizeLine(message.ReplaceLineEndings(" "), 2000));
        if (detail?.StackTrace is { } trace)
            caller.Output.Say(trace);
        return code;
    }

    /// <summary>Sends the parser's help through the output, to stdout.</summary>
    private sealed class HelpWriter(Terminal.Output output) : TextWriter
    {
        public override Encoding Encoding => Encoding.UTF8;

        public override string NewLine => "\n";

        public override void Write(char value) => output.Text(value.ToString());

        public override void Write(string? value) => output.Text(value ?? "");
    }
}
